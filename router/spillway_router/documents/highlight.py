"""Find the values of a document in its text. Pure.

A number is found wherever the same number is written, with a point or a comma, any number of trailing zeros, and its
thousands together or apart: 23.4 in "23,40", 1234.5 in "1.234,50". A text is found wherever its words are, in any case
and with any white space. A value that occurs several times gets the first place that no other value has taken, and
`sure` is False.
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
_GROUPED = re.compile(r"(?<![\d.,'’])[-+]?\d{1,3}(?:[.,'’ \u00a0\u202f]\d{3})+(?:[.,]\d+)?(?![\d])")
_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class TextSpan:
    """The characters [start, end) of the text; `sure` if the value occurs nowhere else."""

    start: int
    end: int
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the text; `field` is the JSON pointer of the value in it, "" for the text between values."""

    text: str
    field: str = ""


def pointers(value: Any, pointer: str = "", depth: int = 0) -> Iterator[tuple[str, Scalar]]:
    """Yield the JSON pointer and the value of every scalar in a JSON value, in order."""
    if isinstance(value, dict | list) and depth < _MAX_DEPTH:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            name = str(key).replace("~", "~0").replace("/", "~1")
            yield from pointers(inner, f"{pointer}/{name}", depth + 1)
    elif isinstance(value, str | int | float | bool) or value is None:
        yield pointer, value


def spans_of_values(text: str, values: Mapping[str, Scalar]) -> dict[str, TextSpan]:
    """Map JSON pointers to places, for the values that are in the text. Null, true and false have no place."""
    numbers: dict[Decimal, list[Span]] = {}
    for match in _NUMBER.finditer(text):
        numbers.setdefault(Decimal(match.group().replace(",", ".")), []).append(match.span())
    for match in _GROUPED.finditer(text):
        for number in _without_groups(match.group()):
            spans = numbers.setdefault(number, [])
            spans.extend([] if match.span() in spans[-1:] else [match.span()])
    taken: set[Span] = set()
    places: dict[str, TextSpan] = {}
    for pointer, value in values.items():
        spans = _occurrences(text, numbers, value)
        free = [span for span in spans if span not in taken] or spans
        if free:
            taken.add(free[0])
            places[pointer] = TextSpan(*free[0], len(spans) == 1)
    return places


def _without_groups(printed: str) -> set[Decimal]:
    """Return the numbers that 1,234.50, 1'234 or 1 234,5 may print: the last separator parts decimals, or thousands."""
    head, mark, tail = re.match(r"(.*)([.,'’ \u00a0\u202f])(\d+)$", printed, re.DOTALL).groups()  # type: ignore[union-attr]
    whole = re.sub(r"[^-+\d]", "", head)
    numbers = {Decimal(whole + tail)} if len(tail) == 3 else set()
    return numbers | ({Decimal(f"{whole}.{tail}")} if mark in ".," else set())


def _occurrences(text: str, numbers: Mapping[Decimal, list[Span]], value: Scalar) -> list[Span]:
    if value is None or isinstance(value, bool) or value == "":
        return []
    if isinstance(value, str):
        words = r"\s+".join(re.escape(word) for word in value.split())
        return [m.span() for m in re.finditer(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)] if words else []
    return numbers.get(Decimal(repr(value)), [])


def segments(text: str, places: Mapping[str, TextSpan]) -> list[Segment]:
    """Cut the text at the places of its values; a place that begins inside another one is left out."""
    pieces: list[Segment] = []
    at = 0
    for field, place in sorted(places.items(), key=lambda item: (item[1].start, item[1].end)):
        if place.start < at:
            continue
        if place.start > at:
            pieces.append(Segment(text[at : place.start]))
        pieces.append(Segment(text[place.start : place.end], field))
        at = place.end
    if at < len(text):
        pieces.append(Segment(text[at:]))
    return pieces
