"""A deterministic generator of eye-biometry reports and the JSON that a reader should extract from them.

`generate(seed)` is a pure function: the same seed gives the same report on every machine. `train.py`
draws seeds from `TRAINING_SEEDS` only; tests, the demo and the published figures use `HELD_OUT_SEEDS`.
The truth always holds what the clean report says, whatever the noise did to the text afterwards.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from spillway_server.demo_model.layouts import (
    FIELDS,
    KEYS,
    LAYOUTS,
    TRAINING_LAYOUTS,
    UNSEEN_LAYOUTS,
    Layout,
)
from spillway_server.demo_model.noise import STRENGTHS, corrupt, truncate

TRAINING_SEEDS = range(0, 10_000_000)
HELD_OUT_SEEDS = range(10_000_000, 11_000_000)
NOISES = ("clean", "light", "heavy", "unseen", "truncated")
INSTRUCTION = "Biometry report to JSON:\n"

_DECIMALS = {"AL": 2, "K1": 2, "K2": 2, "ACD": 2, "LT": 2, "WTW": 1}
_MISSING_SHARE = {"AL": 0.03, "K1": 0.03, "K2": 0.03, "ACD": 0.07, "LT": 0.08, "WTW": 0.08}
_SEPARATORS = (": ", " ", " = ", ":")
_BLANKS = ("---", "n/a", "-.--")


@dataclass(frozen=True, slots=True)
class Document:
    """One report. `truth` has the keys of `KEYS`: two strings, then floats, or None where there is no value.

    Lengths are in mm; K1/K2 are in D, or in mm where the report prints radii only.
    """

    text: str
    truth: dict[str, object]
    layout: str
    noise: str
    language: str


def generate(seed: int, noise: str = "clean", layout: str | None = None) -> Document:
    """Generate the report of `seed`. Without `layout` a training layout is drawn, or an unseen one for noise "unseen".

    Raises `ValueError` for an unknown noise or layout name.
    """
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}: choose one of {', '.join(NOISES)}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    rng = random.Random(f"report/{seed}")  # noqa: S311 - reproducible test data, no secret
    drawn = rng.choice(UNSEEN_LAYOUTS if noise == "unseen" else TRAINING_LAYOUTS)
    form = LAYOUTS[layout] if layout is not None else drawn
    truth = _draw_truth(form, rng)
    text = _print(form, truth, rng)
    damage = random.Random(f"{noise}/{seed}")  # noqa: S311 - as above
    if noise in STRENGTHS:
        text = corrupt(text, STRENGTHS[noise], damage)
    elif noise == "truncated":
        text = truncate(text, damage)
    return Document(text=text, truth=truth, layout=form.name, noise=noise, language=form.language)


def _draw_truth(form: Layout, rng: random.Random) -> dict[str, object]:
    flat = rng.gauss(43.2, 1.5)
    steep = flat + rng.uniform(0.1, 3.0)
    values = {
        "AL": min(max(rng.gauss(23.8, 1.4), 20.0), 33.0),
        "K1": 337.5 / flat if form.radii else flat,  # radius [mm] = 337.5 / power [D], index 1.3375
        "K2": 337.5 / steep if form.radii else steep,
        "ACD": rng.uniform(2.2, 4.2),
        "LT": rng.uniform(3.4, 5.4),
        "WTW": rng.uniform(10.8, 13.2),
    }
    truth: dict[str, object] = {
        "id": rng.choice(("", "P", "E", "MX")) + str(rng.randint(10_000, 999_999)),
        "eye": rng.choice(("OD", "OS")),
    }
    for field in FIELDS:
        missing = rng.random() < _MISSING_SHARE[field]
        truth[field] = None if missing else round(values[field], _DECIMALS[field])
    return truth


def _print(form: Layout, truth: Mapping[str, object], rng: random.Random) -> str:
    blank = rng.choice(_BLANKS)
    words = _distractors(truth, rng)
    for field in FIELDS:
        words[field] = blank if truth[field] is None else numeral(field, truth[field])
    if form.comma:
        words = {name: word.replace(".", ",") if name != "date" else word for name, word in words.items()}
    words["id"] = str(truth["id"])
    words["eye"] = form.right if truth["eye"] == "OD" else form.left
    words["s"] = rng.choice(_SEPARATORS)
    body = [line for line in form.body if not (_only_blank(line, truth) and rng.random() < 0.5)]
    if form.shuffle and rng.random() < 0.5:
        rng.shuffle(body)
    return "\n".join(line.format_map(words) for line in (*form.head, *body, *form.tail))


def _only_blank(line: str, truth: Mapping[str, object]) -> bool:
    """Return whether every biometric value of this line is missing, so that a device would omit the line."""
    fields = [field for field in FIELDS if "{" + field + "}" in line]
    return bool(fields) and all(truth[field] is None for field in fields)


def _distractors(truth: Mapping[str, object], rng: random.Random) -> dict[str, str]:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(2015, 2025)
    axis = rng.randint(0, 89)
    k1, k2 = (truth[key] if isinstance(truth[key], float) else 44.0 for key in ("K1", "K2"))
    return {
        "date": rng.choice((f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}")),
        "snr": str(rng.randint(20, 250)),
        "axis": str(axis),
        "axis2": str(axis + 90),
        "cct": str(rng.randint(470, 620)),
        "iol": f"{rng.randint(20, 60) / 2:+.1f}",
        "acon": f"118.{rng.randint(0, 9)}",
        "pupil": f"{rng.uniform(2.5, 7.0):.1f}",
        "sd": f"0.0{rng.randint(1, 6)}",
        "r1": f"{337.5 / float(str(k1)):.2f}",
        "r2": f"{337.5 / float(str(k2)):.2f}",
    }


def numeral(field: str, value: object) -> str:
    """Format the `value` of `field` as the report prints it, with a decimal point: AL 23.4 -> "23.40"."""
    return f"{float(str(value)):.{_DECIMALS[field]}f}"


def canonical_json(truth: Mapping[str, object]) -> str:
    """Return the one answer that the model is trained to give: compact JSON, keys as in `KEYS`, numerals as printed."""
    parts = []
    for key in KEYS:
        value = truth[key]
        shown = numeral(key, value) if key in _DECIMALS and value is not None else json.dumps(value)
        parts.append(f'"{key}":{shown}')
    return "{" + ",".join(parts) + "}"


def exact(answer_text: str, truth: Mapping[str, object]) -> bool:
    """Return whether the answer is a JSON object with exactly the keys and values of `truth` (23.4 equals 23.40)."""
    try:
        answer = json.loads(answer_text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict) or set(answer) != set(KEYS):
        return False
    return all(_same(answer[key], truth[key]) for key in KEYS)


def _same(value: object, expected: object) -> bool:
    if isinstance(expected, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value - expected) < 1e-9
    return type(value) is type(expected) and value == expected


def prompt(text: str) -> list[dict[str, str]]:
    """Return the chat messages that ask for the JSON of one report; the same in training, evaluation and demo."""
    return [{"role": "user", "content": INSTRUCTION + text}]


def json_schema() -> dict[str, object]:
    """Return the schema of an answer, for `response_format: {"type": "json_schema"}` and for tool parameters."""
    value = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    eye = {"type": "string", "enum": ["OD", "OS"]}
    properties: dict[str, object] = {"id": {"type": "string"}, "eye": eye}
    properties.update(dict.fromkeys(FIELDS, value))
    return {
        "type": "object",
        "properties": properties,
        "required": list(KEYS),
        "additionalProperties": False,
    }
