"""Find the scalar values of a JSON answer in its text, and the tokens that wrote them.

Punctuation and keys are easy for a model, and they outnumber the few tokens that carry content, so JSON and tool calls
are scored on the tokens of their values. A token that reaches into a value counts for it (`"O` of `"OD"` does).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from spillway_router.core.confidence.scores import Token
from spillway_router.core.frozen import fast_frozen

DEEPEST = 32
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = json.JSONDecoder()


@fast_frozen(frozen=True, slots=True)
class Value:
    """A scalar of a JSON text: its RFC 6901 pointer, its parsed value, and its place text[start:end]."""

    pointer: str
    value: str | float | int | bool | None
    start: int
    end: int


def json_start(text: str) -> int:
    """Return the index of the first brace or bracket, where a JSON object or array begins; -1 if there is none."""
    opening = re.search(r"[{\[]", text)
    return -1 if opening is None else opening.start()


def scalars(text: str, start: int) -> tuple[list[Value], int]:
    """Return all scalars of the JSON value that begins at `start`, in order, and the index after the value.

    Raises ValueError if the text is not JSON or is nested deeper than DEEPEST.
    """
    values: list[Value] = []
    return values, _walk(text, _skip(text, start), "", values, 0)


def _walk(text: str, at: int, pointer: str, values: list[Value], depth: int) -> int:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    opening = text[at : at + 1]
    if opening == "{":
        return _walk_members(text, at, pointer, values, depth)
    if opening == "[":
        return _walk_items(text, at, pointer, values, depth)
    value, end = _SCALAR.raw_decode(text, at)
    values.append(Value(pointer, value, at, end))
    return end


def _walk_members(text: str, at: int, pointer: str, values: list[Value], depth: int) -> int:
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return at + 1
    while True:
        if text[at : at + 1] != '"':
            raise ValueError(f"no key at {at}")
        key, at = _SCALAR.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no colon at {at}")
        name = key.replace("~", "~0").replace("/", "~1")
        at = _skip(text, _walk(text, _skip(text, at + 1), f"{pointer}/{name}", values, depth + 1))
        closing = text[at : at + 1]
        if closing == "}":
            return at + 1
        if closing != ",":
            raise ValueError(f"no comma at {at}")
        at = _skip(text, at + 1)


def _walk_items(text: str, at: int, pointer: str, values: list[Value], depth: int) -> int:
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    index = 0
    while True:
        at = _skip(text, _walk(text, at, f"{pointer}/{index}", values, depth + 1))
        closing = text[at : at + 1]
        if closing == "]":
            return at + 1
        if closing != ",":
            raise ValueError(f"no comma at {at}")
        at = _skip(text, at + 1)
        index += 1


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def tokens_by_value(values: Sequence[Value], tokens: Sequence[Token]) -> list[list[Token]]:
    """Return for every value (in text order) the tokens that wrote it. The tokens' texts together must be the text."""
    by_value: list[list[Token]] = [[] for _ in values]
    first, at = 0, 0
    for token in tokens:
        end = at + len(token.text)
        while first < len(values) and values[first].end <= at:
            first += 1
        index = first
        while index < len(values) and values[index].start < end:
            by_value[index].append(token)
            index += 1
        at = end
    return by_value


def required_pointers(schema: Mapping[str, Any] | None) -> frozenset[str]:
    """Return the pointers of the fields that an object schema requires; empty if it names none (then all count)."""
    names = schema.get("required") if schema is not None else None
    if not isinstance(names, list):
        return frozenset()
    return frozenset("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def is_required(pointer: str, required: frozenset[str]) -> bool:
    """Return whether a value is in a required field or below it; every value is if no field is named."""
    if not required:
        return True
    end = pointer.find("/", 1)
    return (pointer if end < 0 else pointer[:end]) in required
