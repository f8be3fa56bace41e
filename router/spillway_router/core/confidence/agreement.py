"""Do two answers to one question say the same? What an audit of a local answer against a stronger model's is judged by.

Documents agree if their JSON values do: numbers by value, text but for white space at its ends, keys in any order.
Other text agrees if enough of its words do: the F1 score of the two bags of words (Rajpurkar et al. 2016, SQuAD),
which is 1 for the same words and 0 for none in common. Two good answers in prose may well share few words, so audits of
prose overstate errors; audits of documents don't.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

SAME_WORDS = 0.6
"""F1 score from which prose counts as agreeing."""
_WORD = re.compile(r"[^\W_]+(?:[.,][0-9]+)*")


def agree(one: str, other: str) -> bool:
    """True if the two answers say the same."""
    first, second = _document(one), _document(other)
    if first is not None and second is not None:
        return same(first, second)
    if first is not None or second is not None:
        return False
    return words_in_common(one, other) >= SAME_WORDS


def words_in_common(one: str, other: str) -> float:
    """F1 score of the words of two texts, in [0, 1]; 1 for two texts without words."""
    first, second = (Counter(_WORD.findall(text.casefold())) for text in (one, other))
    if not first and not second:
        return 1.0
    shared = sum((first & second).values())
    return 2 * shared / (first.total() + second.total())


def _document(text: str) -> Any:
    """A JSON object or array; None for anything else."""
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
    """True if two JSON values are equal: numbers by value, text but for white space at its ends."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, str) and isinstance(other, str):
        return one.strip() == other.strip()
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
