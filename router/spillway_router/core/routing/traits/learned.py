"""The learned complexity of a request: ten times the probability that the local answer would not have been enough.

A logistic regression over the factors of the rule (complexity.py), the shape of the last message and its words, made by
`spillway calibrate-complexity` from labelled requests. Words are known by their hash only, so that the file holds
nothing of the texts it was made from. Reading 1,100 characters takes some 20 us.

Source: K. Weinberger et al., Feature Hashing for Large Scale Multitask Learning, ICML 2009, on hashed words.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from zlib import crc32

from spillway_router.core.routing.traits.complexity import FACTORS, LEAST, MOST
from spillway_router.core.routing.traits.conversation import Conversation

FORMAT = "spillway-complexity/1"
BUCKETS = 4096
"""Places of the hashed words."""
LEARNED = "learned"
"""What stands before the factors of a request whose complexity a fitted file says."""
_SHAPE = ("log_characters", "log_words", "digits", "capitals", "marks", "further_messages", "json")
SHAPE: tuple[str, ...] = (*_SHAPE, *FACTORS)
"""Names of the numbers that `shape` returns: logarithms, shares of the message's bytes, and 0 or 1 for the others."""
_DIGITS, _CAPITALS, _MARKS = (x.encode() for x in (string.digits, string.ascii_uppercase, string.punctuation))
_PLAIN = bytes.maketrans(_CAPITALS + _MARKS, string.ascii_lowercase.encode() + b" " * len(_MARKS))
_MAKE_ONE = "make it with `spillway calibrate-complexity`"


class LearnedComplexityError(Exception):
    """A fitted file can't be used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LearnedComplexity:
    """Weights in log-odds: of the numbers in `SHAPE`, and of words by their bucket."""

    intercept: float
    shape: tuple[float, ...]
    words: Mapping[int, float]

    def probability(self, conversation: Conversation, factors: Iterable[str]) -> float:
        """Return the probability, 0 to 1, that the local answer is not enough. `factors` are the rule's."""
        message = conversation.asked.encode("utf-8", "replace")
        places = buckets(message)
        weights = self.words
        log_odds = self.intercept
        for weight, value in zip(self.shape, shape(message, conversation, factors), strict=True):
            log_odds += weight * value
        if places:
            log_odds += sum([weights.get(bucket, 0.0) for bucket in places]) / math.sqrt(len(places))
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, log_odds))))

    def complexity(self, conversation: Conversation, factors: Iterable[str]) -> int:
        """Return ten times the probability, rounded."""
        return max(LEAST, min(MOST, round(MOST * self.probability(conversation, factors))))

    def to_json(self, provenance: Mapping[str, Any]) -> str:
        """Return the text of its file. `provenance` says from what it was made, and is not read again."""
        model = {
            "intercept": self.intercept,
            "shape": dict(zip(SHAPE, self.shape, strict=True)),
            "words": {str(bucket): weight for bucket, weight in sorted(self.words.items())},
        }
        return (
            json.dumps({"format": FORMAT, "digest": _digest(model), "made": provenance, "model": model}, indent=1)
            + "\n"
        )

    @staticmethod
    def from_json(text: str | bytes) -> LearnedComplexity:
        """Read the text of a file. Raises LearnedComplexityError."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as malformed:
            raise LearnedComplexityError(f"it is not JSON ({malformed}); {_MAKE_ONE}") from malformed
        if not isinstance(data, dict) or data.get("format") != FORMAT or not isinstance(data.get("model"), dict):
            raise LearnedComplexityError(f"it is no {FORMAT}; {_MAKE_ONE}")
        model = data["model"]
        if data.get("digest") != _digest(model):
            raise LearnedComplexityError(f"its digest does not fit its weights, so it was changed; {_MAKE_ONE} again")
        try:
            return _learned(model)
        except KeyError as missing:
            raise LearnedComplexityError(f"it lacks {missing}; {_MAKE_ONE}") from missing
        except (TypeError, ValueError, AttributeError) as error:
            raise LearnedComplexityError(f"{error}; {_MAKE_ONE}") from error


def buckets(message: bytes) -> set[int]:
    """Return the buckets of the different words of a message (UTF-8), without case and ASCII punctuation."""
    return {crc32(word) % BUCKETS for word in set(message.translate(_PLAIN).split())}


def shape(message: bytes, conversation: Conversation, factors: Iterable[str]) -> tuple[float, ...]:
    """Return the numbers that `SHAPE` names. `message` is the last message as UTF-8."""
    size = max(1, len(message))
    holding = frozenset(factors)
    return (
        math.log1p(len(message)),
        math.log1p(conversation.words),
        (len(message) - len(message.translate(None, _DIGITS))) / size,
        (len(message) - len(message.translate(None, _CAPITALS))) / size,
        (len(message) - len(message.translate(None, _MARKS))) / size,
        float(conversation.user_messages > 1),
        float(conversation.wants_json),
        *[float(factor in holding) for factor in FACTORS],
    )


def _digest(model: Mapping[str, Any]) -> str:
    return sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()


def _learned(model: Mapping[str, Any]) -> LearnedComplexity:
    words = {int(bucket): float(weight) for bucket, weight in model["words"].items()}
    learned = LearnedComplexity(float(model["intercept"]), tuple(float(model["shape"][name]) for name in SHAPE), words)
    if not all(map(math.isfinite, (learned.intercept, *learned.shape, *words.values()))):
        raise ValueError("a weight is no finite number")
    if not all(0 <= bucket < BUCKETS for bucket in words):
        raise ValueError(f"a word's bucket is not in 0 to {BUCKETS - 1}")
    return learned
