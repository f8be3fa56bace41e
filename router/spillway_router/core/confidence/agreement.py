"""Whether two answers to one question say the same. Audits compare a local answer with a stronger model's by it.

Documents agree if their JSON values do: numbers by value, text without white space at its ends, keys in any order.
Other text agrees if enough of its words do, by the F1 score of the two bags of words (Rajpurkar et al. 2016, SQuAD): 1
for the same words, 0 for no word in common. Two good answers in prose may share few words, so audits of prose overstate
errors; audits of documents don't.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

SAME_WORDS = 0.6
"""F1 score from which on prose counts as agreeing."""
_WORD = re.compile(r"[^\W_]+(?:[.,][0-9]+)*")


def agree(one: str, other: str) -> bool:
    """Return whether the two answers say the same."""
    first, second = _document(one), _document(other)
    if first is not None and second is not None:
        return same(first, second)
    if first is not None or second is not None:
        return False
    return words_in_common(one, other) >= SAME_WORDS


def words_in_common(one: str, other: str) -> float:
    """Return the F1 score of the words of two texts, in [0, 1]; 1 for two texts without words."""
    first, second = (Counter(_WORD.findall(text.casefold())) for text in (one, other))
    if not first and not second:
        return 1.0
    shared = sum((first & second).values())
    return 2 * shared / (first.total() + second.total())


def _document(text: str) -> Any:
    """Return the JSON object or array that the text holds; None for anything else."""
    stripped = text.strip()
    if stripped.startswith("```"):
        stripped = stripped.strip("`").removeprefix("json").strip()
    if not stripped.startswith(("{", "[")):
        return None
    try:
        return json.loads(stripped)
    except (ValueError, RecursionError):
        return None


def same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: numbers by value, text without white space at its ends."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
