"""The complexity of a request, 0 to 10: a sum of weights that can be read off, not learned.

    multi_turn     +3   the conversation has several messages of the user
    analysis       +2   it asks to analyse, compare, evaluate or plan
    creativity     +2   it asks to write, invent or design something new
    personal_data  +1   it is about the person who asks, or a privacy detector found something
    length         +1   the message is long
    simple         -2   it asks for a fact, a definition or a yes or no, or it is a greeting
    examples       -1   it shows by examples what it wants, so that less is left to understand
    faq            -2   it asks what everybody asks

The sum is cut at 0 and 10. A rule beside this score should be an honest one: `spillway report` shows what share of the
answers to complex requests was escalated, and an alias that always goes to the local engine is the baseline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

Factor = Literal["multi_turn", "analysis", "creativity", "personal_data", "length", "simple", "examples", "faq"]
FACTORS: tuple[Factor, ...] = get_args(Factor)
LEAST, MOST = 0, 10
WEIGHTS: Mapping[str, int] = MappingProxyType(
    {
        "multi_turn": 3,
        "analysis": 2,
        "creativity": 2,
        "personal_data": 1,
        "length": 1,
        "simple": -2,
        "examples": -1,
        "faq": -2,
    }
)


def complexity(factors: Iterable[str], weights: Mapping[str, int] = WEIGHTS) -> int:
    """Return the sum of the factors' weights, cut at 0 and 10."""
    return max(LEAST, min(MOST, sum([weights[factor] for factor in factors])))
