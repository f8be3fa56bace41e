"""Read printed numbers: 23.44, 23,44, 1.234,5 and 1'234.50. Pure.

One separator with three digits behind it is ambiguous (1,234): the other numbers of the document then decide what its
decimal mark is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

THOUSANDS = 3


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number, its decimal mark ("" without decimals), its decimals, and whether it may be another number as well."""

    value: float
    mark: str
    decimals: int
    ambiguous: bool = False


def decimal_mark(texts: Iterable[str]) -> str:
    """Return the decimal mark of most of these numbers, "" if none shows it."""
    marks = Counter(
        numeral.mark
        for text in texts
        if (numeral := read_numeral(text, "")) is not None and numeral.mark and not numeral.ambiguous
    )
    return max(marks, key=lambda mark: marks[mark], default="")


def read_numeral(text: str, mark: str) -> Numeral | None:
    """Return the number that a text prints, None if it is none. `mark` is the document's decimal mark ("": unknown)."""
    plain = re.sub(r"['’]", "", text)
    separators = re.findall(r"[.,]", plain)
    if not separators:
        return Numeral(float(plain), "", 0) if plain.isdecimal() else None
    last = separators[-1]
    whole, _, fraction = plain.rpartition(last)
    grouped = len(separators) > 1
    ambiguous = False
    if not grouped and len(fraction) == THOUSANDS and 0 < len(whole) <= THOUSANDS and whole != "0":
        ambiguous = mark == ""
        if mark not in ("", last):
            return Numeral(float(whole + fraction), "", 0)
    if grouped and last in separators[:-1]:
        return Numeral(float(re.sub(r"[.,]", "", plain)), "", 0) if len(set(separators)) == 1 else None
    digits = re.sub(r"[.,]", "", whole)
    if not (digits.isdecimal() and fraction.isdecimal()):
        return None
    return Numeral(float(f"{digits}.{fraction}"), last, len(fraction), ambiguous)
