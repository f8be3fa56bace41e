"""From token log-probabilities to a confidence, without a calibration file.

confidence = exp(mean of the chosen tokens' log-probabilities): the geometric mean token probability, in [0, 1].
Two traps are kept out: tokens that a grammar forced (every alternative at -9999 or less) carry no information, and
an engine that reports 0.0 for nearly all tokens has no signal at all, which is not the same as being sure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

FORCED = -9999.0
SILENT_SHARE = 0.95


def token_logprobs(choice: Mapping[str, Any]) -> list[float]:
    """Chosen-token logprobs of one chat or completions choice; forced and unreadable tokens left out."""
    found = choice.get("logprobs")
    if not isinstance(found, Mapping):
        return []
    content = found.get("content")
    if isinstance(content, list):
        return [x for item in content if (x := _chat_logprob(item)) is not None]
    values = found.get("token_logprobs")
    return [x for x in values if isinstance(x, int | float) and x > FORCED] if isinstance(values, list) else []


def _chat_logprob(item: object) -> float | None:
    if not isinstance(item, Mapping):
        return None
    value = item.get("logprob")
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= FORCED:
        return None
    others = item.get("top_logprobs")
    if isinstance(others, list) and len(others) > 1 and all(_forced_out(o, item) for o in others):
        return None
    return float(value)


def _forced_out(other: object, chosen: Mapping[str, Any]) -> bool:
    """True for the chosen token itself and for alternatives that the grammar masked."""
    if not isinstance(other, Mapping):
        return True
    if other.get("token") == chosen.get("token"):
        return True
    value = other.get("logprob")
    return not isinstance(value, int | float) or value <= FORCED


def mean_confidence(logprobs: Iterable[float]) -> float | None:
    """exp(mean); None where there is no signal (no tokens, or all but 5% exactly 0)."""
    values = list(logprobs)
    if not values:
        return None
    if sum(1 for x in values if x == 0.0) > SILENT_SHARE * len(values):
        return None
    mean = math.fsum(values) / len(values)
    return math.exp(min(0.0, mean)) if math.isfinite(mean) else None


def answer_confidence(body: Mapping[str, Any]) -> float | None:
    """Confidence of a non-stream answer: the least of its choices; None where one has no signal."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    scores = [mean_confidence(token_logprobs(c)) if isinstance(c, Mapping) else None for c in choices]
    known = [s for s in scores if s is not None]
    return min(known) if len(known) == len(scores) else None
