"""The model classes that vLLM knows, recorded in architectures.txt from the version that Spillway installs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("architectures.txt")
VERSION = "0.32"
_POOLING = "# pooling"


@cache
def _names() -> tuple[frozenset[str], frozenset[str]]:
    generating, _, pooling = FILE.read_text(encoding="utf-8").partition(f"\n{_POOLING}\n")
    sets = [
        frozenset(line for line in part.splitlines() if line and not line.startswith("#"))
        for part in (generating, pooling)
    ]
    return sets[0], sets[1]


def is_known(name: str) -> bool:
    """Return whether vLLM has a class of this name."""
    generating, pooling = _names()
    return name in generating or name in pooling


def only_pools(name: str) -> bool:
    """Return whether the class embeds, ranks or classifies, and can't generate text."""
    generating, pooling = _names()
    return name in pooling and name not in generating
