"""Where the values of a JSON answer stand in its text, and which tokens wrote them. No I/O: text in, spans out.

An answer's punctuation and keys are easy for a model and drown the few tokens that carry content, so JSON and tool
calls are scored on value tokens. A token that reaches into a value counts for it (`"O` of `"OD"` does).
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
    """A scalar of a JSON text: RFC 6901 pointer, parsed value, and where it is written: text[start:end]."""

    pointer: str
    value: str | float | int | bool | None
    start: int
    end: int


def json_start(text: str) -> int:
    """Index of the first brace or bracket at which a JSON object or array begins; -1 if there is none."""
    found = re.search(r"[{\[]", text)
    return -1 if found is None else found.start()


def scalars(text: str, start: int) -> tuple[list[Value], int]:
    """All scalars of the JSON value that begins at `start`, in order, and the index behind it.

    Raises ValueError where the text is no JSON or nested deeper than DEEPEST.
    """
    found: list[Value] = []
    return found, _walk(text, _skip(text, start), "", found, 0)


def _walk(text: str, at: int, pointer: str, found: list[Value], depth: int) -> int:
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST}")
    opening = text[at : at + 1]
    if opening == "{":
        return _walk_members(text, at, pointer, found, depth)
    if opening == "[":
        return _walk_items(text, at, pointer, found, depth)
    value, end = _SCALAR.raw_decode(text, at)
    found.append(Value(pointer, value, at, end))
    return end


def _walk_members(text: str, at: int, pointer: str, found: list[Value], depth: int) -> int:
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
        at = _skip(text, _walk(text, _skip(text, at + 1), f"{pointer}/{name}", found, depth + 1))
        closing = text[at : at + 1]
        if closing == "}":
            return at + 1
        if closing != ",":
            raise ValueError(f"no comma at {at}")
        at = _skip(text, at + 1)


def _walk_items(text: str, at: int, pointer: str, found: list[Value], depth: int) -> int:
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    index = 0
    while True:
        at = _skip(text, _walk(text, at, f"{pointer}/{index}", found, depth + 1))
        closing = text[at : at + 1]
        if closing == "]":
            return at + 1
        if closing != ",":
            raise ValueError(f"no comma at {at}")
        at = _skip(text, at + 1)
        index += 1


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def tokens_by_value(values: Sequence[Value], tokens: Sequence[Token]) -> list[list[Token]]:
    """For every value (in text order) the tokens that wrote it, where the tokens' texts together are the text."""
    owned: list[list[Token]] = [[] for _ in values]
    first, at = 0, 0
    for token in tokens:
        end = at + len(token.text)
        while first < len(values) and values[first].end <= at:
            first += 1
        index = first
        while index < len(values) and values[index].start < end:
            owned[index].append(token)
            index += 1
        at = end
    return owned


def required_pointers(schema: Mapping[str, Any] | None) -> frozenset[str]:
    """Pointers of the fields that an object schema requires; empty where it says nothing (then all count)."""
    names = schema.get("required") if schema is not None else None
    if not isinstance(names, list):
        return frozenset()
    return frozenset("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def is_required(pointer: str, required: frozenset[str]) -> bool:
    """Whether a value stands in a required field (or below it); all do where none is named."""
    if not required:
        return True
    end = pointer.find("/", 1)
    return (pointer if end < 0 else pointer[:end]) in required
