"""Simple reports in layouts that a reviewer of the project made up, none of which its own generators have.

Rebuilt from 18 of his 600 reports: `LAYOUTS` are those that he sent clean, with captions in English or French, in one
line, in lines, with `=`, in two columns, or with means and spreads. K1 and K2 are drawn independently, as he did.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from evidence.documents.corpus import CorpusDocument
from spillway_server.demo_model.noise import STRENGTHS, corrupt

LAYOUTS = ("anterion", "iolmaster", "lenstar", "case", "columns", "means")
_FRENCH = {
    "AL": "Long. axiale", "K1": "K plat", "K2": "K cambré", "ACD": "Ch. antérieure", "LT": "Ép. cristallin",
    "WTW": "Blanc à blanc",
}  # fmt: skip
_SHUFFLED = ("anterion", "lenstar", "case")


def foreign(seed: int, *, damaged: bool = False) -> CorpusDocument:
    """Return the report of a seed. The layouts take turns."""
    rng = random.Random(f"foreign/{seed}")
    layout = LAYOUTS[seed % len(LAYOUTS)]
    eye, number = rng.choice(("OD", "OS")), str(rng.randint(10_000, 99_999))
    eyes = {side: _values(rng) for side in ("OD", "OS")}
    names = list(_FRENCH)
    if layout in _SHUFFLED:
        rng.shuffle(names)
    text = _text(layout, number, eye, names, eyes, rng)
    if damaged:
        text = corrupt(text, STRENGTHS["light"], rng)
    truth: dict[str, object] = {"id": number, "eye": eye, **{n: float(v) for n, v in eyes[eye].items()}}
    return CorpusDocument(
        text,
        truth,
        kind="biometry",
        arrangement=layout,
        language="fr" if layout in ("columns", "means") else "en",
        damaged=damaged,
    )


def _values(rng: random.Random) -> dict[str, str]:
    return {
        "AL": f"{rng.uniform(20, 30):.2f}",
        "K1": f"{rng.uniform(39, 48):.2f}",
        "K2": f"{rng.uniform(39, 48):.2f}",
        "ACD": f"{rng.uniform(2, 4.5):.2f}",
        "LT": f"{rng.uniform(3, 5.5):.2f}",
        "WTW": f"{rng.uniform(10.5, 13):.1f}",
    }


def _text(
    layout: str, number: str, eye: str, names: list[str], eyes: Mapping[str, Mapping[str, str]], rng: random.Random
) -> str:
    values = eyes[eye]
    if layout == "anterion":
        return "; ".join(("Anterion", number, eye, *(f"{name} {values[name]}" for name in names)))
    if layout == "iolmaster":
        lines = "\n".join(f"{name}: {values[name]}" for name in names)
        return f"IOLMaster 700\nPatient: {number}  Eye: {eye}\n{lines}"
    if layout == "lenstar":
        return f"LENSTAR LS900 ID {number} {eye}\n" + " | ".join(f"{name}={values[name]}" for name in names)
    if layout == "case":
        entries = ";".join(f"{name.lower()}={values[name]}" for name in names)
        return f"case:{number};eye:{eye};{entries};target=-0.{rng.randint(10, 99)};A-const=118.{rng.randint(0, 9)}"
    if layout == "columns":
        rows = "\n".join(f"{_FRENCH[n]:<16}{eyes['OD'][n]:>8}{eyes['OS'][n]:>8}" for n in names)
        return f"Biometry 2025-09-25   case {number}   requested; {eye}\n{'OD':>22}{'OS':>8}\n{rows}"
    rows = "\n".join(f"{_FRENCH[n]} mean {values[n]} (SD 0.0{rng.randint(1, 9)}, n={rng.randint(3, 9)})" for n in names)
    return f"[{eye}] #{number} OA-2000\n{rows}"
