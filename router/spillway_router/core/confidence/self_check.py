"""A second look: where an answer's confidence leaves it open, the engine is asked about its own answer.

p_true   "is it right?", one token: P(True) / (P(True) + P(False)) (Kadavath et al. 2022, "Language models (mostly) know
         what they know")
stated   "how sure, from 0 to 100?": the number it writes, / 100 (Lin et al. 2022, "Teaching models to express their
         uncertainty in words")

Both are scores like any other: they move a confidence only through a calibration that was fitted with them. What does
not answer the question is no score: neither word likely, anything but a number, no alternatives told. That is detected,
never taken for a low or a high one.
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
"""Probability of both words together below which the model was not answering the question."""
SHORTEST_S = 0.005
"""With less time left nothing is asked."""
_NUMBER = re.compile(r"\s*(\d{1,3})\s*%?\s*\.?\s*")


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What is asked, and when: only where confidence lies within `band` of the threshold, for `longest_s` seconds at
    most. `words`: the one that means right, and the one that means wrong."""

    kind: SelfCheckKind
    band: float
    longest_s: float
    question: str
    words: tuple[str, str]


def is_worth_asking(rule: SelfCheck, verdict: ConfidenceVerdict, threshold: float) -> bool:
    """Whether a second look could change what becomes of this answer: a calibrated confidence near the threshold."""
    if not verdict.calibrated or verdict.confidence is None or not FATAL.isdisjoint(verdict.flaws):
        return False
    return abs(verdict.confidence - threshold) <= rule.band


def p_true(alternatives: Sequence[tuple[str, float]], words: tuple[str, str]) -> float | None:
    """P(first word) / (P(first) + P(second)) in [0, 1]; None where this is no answer to the question.

    `alternatives`: the first token's, each with its log-probability.
    """
    right, wrong = word_probabilities(alternatives, words)
    return right / (right + wrong) if right + wrong >= LEAST_MASS else None


def word_probabilities(alternatives: Sequence[tuple[str, float]], words: tuple[str, str]) -> tuple[float, float]:
    """Probability of either word; a token that only begins one counts for it. (0, 0) where there is no signal."""
    known = [(text, value) for text, value in alternatives if math.isfinite(value) and value > FORCED]
    if len(known) < 2 or all(value == 0.0 for _, value in known):
        return 0.0, 0.0
    right, wrong = (math.fsum(math.exp(min(0.0, v)) for text, v in known if _meant(text, words) == i) for i in (0, 1))
    return right, wrong


def _meant(token: str, words: tuple[str, str]) -> int | None:
    """Which of the words a token writes or begins; None for neither, or for what both begin with."""
    piece = token.strip().casefold()
    found = [i for i, word in enumerate(words) if piece and word.casefold().startswith(piece)]
    return found[0] if len(found) == 1 else None


def stated(text: str) -> float | None:
    """The number of a whole reply / 100, in [0, 1]; None unless it is one number from 0 to 100 and nothing else."""
    found = _NUMBER.fullmatch(text)
    if found is None or (number := int(found.group(1))) > 100:
        return None
    return number / 100
