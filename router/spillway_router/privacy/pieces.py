"""The texts of a body that belong together: words and numbers may be split over content parts, messages and items."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

_TEXT_FIELDS = frozenset(
    {"text", "content", "output", "input", "arguments", "thinking", "reasoning", "reasoning_content", "refusal"}
    | {"prompt", "suffix", "instructions", "system", "summary", "partial_json", "title", "context", "data", "message"}
)
_MOST_DEPTH = 200
"""A body is nested no deeper (proxy/request/body.py)."""
_STEP_NODES = 5_000
_SEAM = 128
"""Characters of a text at either end in which something that two texts share is looked for."""
_LONG_SEAM = 1024
"""The same for an end that is one long token, or has characters that are encoded by several others."""


def seams(texts: Sequence[str]) -> list[str]:
    """Return the beginning and the end of each text, which is all of a short one; a NUL stands for the rest."""
    ends: list[str] = []
    for text in texts:
        if len(text) <= 2 * _SEAM:
            ends.append(text)
            continue
        first, last = _length(text[:_SEAM]), _length(text[-_SEAM:])
        ends.append(text if first + last >= len(text) else f"{text[:first]}\0{text[-last:]}")
    return ends


def _length(end: str) -> int:
    return _LONG_SEAM if " " not in end or "\\" in end or "&" in end or "%" in end else _SEAM


def may_meet(texts: Sequence[str]) -> bool:
    """Return False if every text but the last ends with a mark behind which nothing goes on in the next text."""
    for text in texts[:-1]:
        end = text[-_SEAM:].rstrip()
        if end and end[-1] in "!?;)]}":
            continue
        # A point may be that of an address, a token or a number.
        if len(end) > 1 and end[-1] == "." and not end[-2].isdigit() and "@" not in end and "eyJ" not in text:
            continue
        return True
    return False


def text_pieces(body: Mapping[str, Any]) -> list[str]:
    """Return the texts that a reader of the request reads one after the other, in their order."""
    texts: list[str] = []
    for name, value in body.items():
        if name in _ROOTS:
            _add_texts(texts, value, 0)
    return texts


_ROOTS = frozenset({"messages", "prompt", "input", "instructions", "system", "suffix"})


def _add_texts(texts: list[str], node: object, depth: int) -> None:
    if isinstance(node, str):
        texts.append(node)
    elif depth > _MOST_DEPTH:
        return
    elif isinstance(node, list):
        for inner in node:
            _add_texts(texts, inner, depth + 1)
    elif isinstance(node, dict):
        for name, inner in node.items():
            if _is_read(name, inner):
                _add_texts(texts, inner, depth + 1)


def _is_read(name: str, value: object) -> bool:
    return name in _TEXT_FIELDS or (isinstance(value, (dict, list)) and name != "metadata")


def text_pieces_in_steps(body: Mapping[str, Any]) -> Generator[None, None, list[str]]:
    """Return what `text_pieces` returns; the caller may do something else between two steps."""
    texts: list[str] = []
    nodes: list[object] = [value for name, value in body.items() if name in _ROOTS][::-1]
    passed = 0
    while nodes:
        node = nodes.pop()
        if isinstance(node, str):
            texts.append(node)
        elif isinstance(node, list):
            nodes += reversed(node)
        elif isinstance(node, dict):
            nodes += [inner for name, inner in node.items() if _is_read(name, inner)][::-1]
        passed += 1
        if passed % _STEP_NODES == 0:
            yield
    return texts
