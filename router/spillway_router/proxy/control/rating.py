"""What a client means by a rating, as stars from 1 to 5. Pure.

    "rating": 1 to 5                                    stars
    "rating": "up", "good", "down", "bad"               5 and 1
    "rating": true, false                               5 and 1
    "score": -1, 0, 1   with   "scale": "thumbs"        1, 3 and 5
    "score": 0, 1       with   "scale": "binary"        1 and 5
    "score": 1 to 5     with   "scale": "stars"         stars

A bare 1 is one star of five, and the best of a pair of thumbs. Who sends it can't be told apart, and guessing wrong
turns praise into complaint. So a bare number is stars. A bare -1 or 0 is refused although it could only be a thumb: who
sends those sends 1 too, and would be misread. Thumbs say that they are some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {"up": 5, "good": 5, "down": 1, "bad": 1}
SCALES: Mapping[str, Mapping[int, int]] = {
    "stars": {n: n for n in range(1, 6)},
    "thumbs": {-1: 1, 0: 3, 1: 5},
    "binary": {0: 1, 1: 5},
}
FIELDS = frozenset({"rating", "score", "scale"})
_THUMBS = 'true or false, or {"score": -1, 0 or 1, "scale": "thumbs"}'


class RatingError(Exception):
    """It can't be read; the message says what to send instead, `param` names the field."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def stars(body: Mapping[str, Any]) -> int | None:
    """1 to 5; None where the body rates nothing. Raises RatingError."""
    rating, score, scale = body.get("rating"), body.get("score"), body.get("scale")
    if score is not None:
        if rating is not None:
            raise RatingError("Send 'rating' or 'score', not both.", "score")
        return _scored(score, scale)
    if scale is not None:
        raise RatingError("'scale' belongs to 'score': send the number as 'score'.", "scale")
    return None if rating is None else _rated(rating)


def _rated(rating: object) -> int:
    if isinstance(rating, bool):
        return 5 if rating else 1
    if isinstance(rating, str) and rating.lower() in WORDS:
        return WORDS[rating.lower()]
    if isinstance(rating, int) and rating in SCALES["stars"]:
        return rating
    if isinstance(rating, int) and rating in (-1, 0):
        told = f"A 'rating' of {rating} is no number of stars, and 1 would be the fewest of them."
        raise RatingError(f"{told} Send thumbs as {_THUMBS}.", "rating")
    told = f"'rating' must be a whole number from 1 to 5 (stars), up, down, true or false. Thumbs: {_THUMBS}."
    raise RatingError(told, "rating")


def _scored(score: object, scale: object) -> int:
    known = SCALES.get(scale) if isinstance(scale, str) else None
    if known is None:
        told = "'score' needs a 'scale': thumbs (-1, 0, 1), binary (0, 1) or stars (1 to 5)."
        raise RatingError(told, "scale")
    whole = int(score) if isinstance(score, float) and score.is_integer() else score
    if isinstance(whole, bool) or not isinstance(whole, int) or whole not in known:
        allowed = ", ".join(map(str, known))
        raise RatingError(f"'score' on the scale {scale} must be one of {allowed}.", "score")
    return known[whole]
