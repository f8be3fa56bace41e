"""Damage a report as a scanner and an OCR engine do, in graded strengths.

Look-alike swaps (0/O, 1/l, 5/S, 8/B, 2/Z) can mostly be undone by a reader who knows where a number belongs.
Replaced and lost digits can't be recovered: they make a wrong answer honest, since no reader could know the true value.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_LOOK_ALIKE = {
    "0": "O", "O": "0", "1": "l", "l": "1", "5": "S", "S": "5", "8": "B", "B": "8", "2": "Z", "Z": "2",
    ".": ",", ",": ".",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Strength:
    """Probabilities per character: look-alike swap, lost, doubled, space put before it, digit replaced."""

    swap: float
    lose: float
    double: float
    space: float
    digit: float


STRENGTHS = {
    "light": Strength(swap=0.020, lose=0.0020, double=0.0015, space=0.004, digit=0.0025),
    "heavy": Strength(swap=0.090, lose=0.0080, double=0.0060, space=0.012, digit=0.0150),
}


def corrupt(text: str, strength: Strength, rng: random.Random) -> str:
    """Return `text` with errors of this strength drawn from `rng`; line breaks survive, and with them the layout."""
    out: list[str] = []
    for char in text:
        if char == "\n":
            out.append(char)
            continue
        if rng.random() < strength.space:
            out.append(" ")
        if rng.random() < strength.lose:
            continue
        if char.isdigit() and rng.random() < strength.digit:
            char = rng.choice([digit for digit in "0123456789" if digit != char])
        elif char in _LOOK_ALIKE and rng.random() < strength.swap:
            char = _LOOK_ALIKE[char]
        out.append(char)
        if rng.random() < strength.double:
            out.append(char)
    return "".join(out)


def truncate(text: str, rng: random.Random) -> str:
    """Return the first 35% to 90% of `text`: a page that was cut off."""
    return text[: int(len(text) * rng.uniform(0.35, 0.90))]
