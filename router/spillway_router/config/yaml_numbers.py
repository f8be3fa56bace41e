"""Numbers that YAML reads otherwise than people: `010` is 8 (to the base of 8), `1:30` is 90 (to the base of 60)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import yaml

_TAGS: Final = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})

Path = tuple[str | int, ...]


def misread_numbers(root: yaml.Node | None) -> Iterator[tuple[Path, str]]:
    """Yield the path of each such number in a text, and what to write instead."""
    pending: list[tuple[Path, yaml.Node | None]] = [((), root)]
    while pending:
        path, node = pending.pop()
        if isinstance(node, yaml.MappingNode):
            pending.extend(((*path, key.value), value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            pending.extend(((*path, i), item) for i, item in enumerate(node.value))
        elif isinstance(node, yaml.ScalarNode) and node.style is None and node.tag in _TAGS:
            problem = _misreading(node.value)
            if problem:
                yield path, problem


def _misreading(text: str) -> str:
    """Return what is wrong with a number in YAML; empty if it means what it looks like."""
    digits = text.lstrip("+-")
    if ":" in digits:
        return "YAML reads a number with colons to the base of 60, so that 1:30 is 90; put quotes around a time"
    if digits.startswith("0") and digits.replace("_", "").isdecimal() and digits.strip("0_"):
        return "YAML reads a number that begins with 0 to the base of 8, so that 010 is 8; write it without that 0"
    return ""
