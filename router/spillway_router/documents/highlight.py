"""Where the values of a document stand in its text. Pure.

A number stands wherever the same number is written, with a point or a comma and any number of trailing zeros: 23.4 in
"23,40". A text stands where its letters are, in any case and with any white space. Where a value could stand in several
places, the first that no other value has taken is shown, and `sure` is False.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Scalar = str | float | int | bool | None
Span = tuple[int, int]
_NUMBER = re.compile(r"(?<![\d.,])[-+]?\d+(?:[.,]\d+)?(?![\d])")
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class TextSpan:
    """Characters [start, end) of the text; `sure` if the value stands nowhere else."""

    start: int
    end: int
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text; `field` is the JSON pointer of the value that it holds, "" for the text between."""

    text: str
    field: str = ""


def pointers(value: Any, pointer: str = "", depth: int = 0) -> Iterator[tuple[str, Scalar]]:
    """JSON pointer and value of every scalar in a JSON value, in its order."""
    if isinstance(value, dict | list) and depth < _DEEPEST:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            name = str(key).replace("~", "~0").replace("/", "~1")
            yield from pointers(inner, f"{pointer}/{name}", depth + 1)
    elif isinstance(value, str | int | float | bool) or value is None:
        yield pointer, value


def places(text: str, values: Mapping[str, Scalar]) -> dict[str, TextSpan]:
    """JSON pointer -> place, for the values that stand in the text. Null, true and false stand nowhere."""
    numbers: dict[Decimal, list[Span]] = {}
    for match in _NUMBER.finditer(text):
        numbers.setdefault(Decimal(match.group().replace(",", ".")), []).append(match.span())
    taken: set[Span] = set()
    found: dict[str, TextSpan] = {}
    for pointer, value in values.items():
        spans = _spans(text, numbers, value)
        free = [span for span in spans if span not in taken] or spans
        if free:
            taken.add(free[0])
            found[pointer] = TextSpan(*free[0], len(spans) == 1)
    return found


def _spans(text: str, numbers: Mapping[Decimal, list[Span]], value: Scalar) -> list[Span]:
    if value is None or isinstance(value, bool) or value == "":
        return []
    if isinstance(value, str):
        words = r"\s+".join(re.escape(word) for word in value.split())
        return [m.span() for m in re.finditer(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)] if words else []
    return numbers.get(Decimal(repr(value)), [])


def segments(text: str, found: Mapping[str, TextSpan]) -> list[Segment]:
    """The text cut at the places; one that begins inside another is left out."""
    cut: list[Segment] = []
    at = 0
    for field, place in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start < at:
            continue
        if place.start > at:
            cut.append(Segment(text[at : place.start]))
        cut.append(Segment(text[place.start : place.end], field))
        at = place.end
    if at < len(text):
        cut.append(Segment(text[at:]))
    return cut
