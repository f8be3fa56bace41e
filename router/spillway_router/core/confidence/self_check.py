"""The self-check: where confidence alone doesn't settle an answer, ask the engine about its own answer.

p_true   "is it right?", one token: P(True) / (P(True) + P(False)) (Kadavath et al. 2022, "Language models (mostly) know
         what they know")
stated   "how sure, from 0 to 100?": the number that it writes, / 100 (Lin et al. 2022, "Teaching models to express
their uncertainty in words")

Both are scores like any other: they move a confidence only through a calibration that was fitted with them. A reply
that does not answer the question gives no score: neither word is likely, it is anything but a number, or alternatives
are missing. Such a reply is detected and never counts as a low or a high score.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spillway_router.core.confidence.judge import ConfidenceVerdict
from spillway_router.core.confidence.scores import FORCED
from spillway_router.core.confidence.validators import FATAL

SelfCheckKind = Literal["p_true", "stated"]
QUESTIONS: dict[SelfCheckKind, str] = {
    "p_true": "Is the answer above correct? Answer with one word: True or False.",
    "stated": "How likely is it that the answer above is correct? Answer with a number from 0 to 100 and nothing else.",
}
LEAST_MASS = 0.1
"""Probability of both words together below which the model did not answer the question."""
SHORTEST_S = 0.005
"""Shortest time left in which it is worth asking."""
_NUMBER = re.compile(r"\s*(\d{1,3})\s*%?\s*\.?\s*")


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The question, and when to ask it: only if the confidence lies within `band` of the threshold, and for at most
    `longest_s` seconds. `words`: the word that means right, and the one that means wrong."""

    kind: SelfCheckKind
    band: float
    longest_s: float
    question: str
    words: tuple[str, str]


def is_worth_asking(rule: SelfCheck, verdict: ConfidenceVerdict, threshold: float) -> bool:
    """Return whether a self-check could change what becomes of this answer: is its calibrated confidence near the
    threshold?"""
    if not verdict.calibrated or verdict.confidence is None or not FATAL.isdisjoint(verdict.flaws):
        return False
    return abs(verdict.confidence - threshold) <= rule.band


def p_true(alternatives: Sequence[tuple[str, float]], words: tuple[str, str]) -> float | None:
    """Return P(first word) / (P(first) + P(second)) in [0, 1]; None if the reply does not answer the question.

    `alternatives`: those of the reply's first token, each with its log-probability.
    """
    right, wrong = word_probabilities(alternatives, words)
    return right / (right + wrong) if right + wrong >= LEAST_MASS else None


def word_probabilities(alternatives: Sequence[tuple[str, float]], words: tuple[str, str]) -> tuple[float, float]:
    """Return the probability of each word; a token that only begins a word counts for it. (0, 0) without a signal."""
    usable = [(text, value) for text, value in alternatives if math.isfinite(value) and value > FORCED]
    if len(usable) < 2 or all(value == 0.0 for _, value in usable):
        return 0.0, 0.0
    sums = [0.0, 0.0]
    for text, logprob in usable:
        index = _word_index(text, words)
        if index is not None:
            sums[index] += math.exp(min(0.0, logprob))
    return sums[0], sums[1]


def _word_index(token: str, words: tuple[str, str]) -> int | None:
    """Return which of the words a token writes or begins; None for neither, and for a beginning that both share."""
    piece = token.strip().casefold()
    matches = [i for i, word in enumerate(words) if piece and word.casefold().startswith(piece)]
    return matches[0] if len(matches) == 1 else None


def stated(text: str) -> float | None:
    """Return the number of a reply / 100, in [0, 1]; None unless the reply is one number from 0 to 100 and nothing
    else."""
    match = _NUMBER.fullmatch(text)
    if match is None or (number := int(match.group(1))) > 100:
        return None
    return number / 100
