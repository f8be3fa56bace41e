"""What a client means by a rating, as stars from 1 to 5. Pure.

    "rating": 1 to 5                                    stars
    "rating": "up", "good", "down", "bad"               5 and 1
    "rating": true, false                               5 and 1
    "score": -1, 0, 1   with   "scale": "thumbs"        1, 3 and 5
    "score": 0, 1       with   "scale": "binary"        1 and 5
    "score": 1 to 5     with   "scale": "stars"         stars

A bare 1 is one star of five, and also the better of two thumbs. Nothing tells the two apart, and a wrong guess would
turn praise into a complaint, so a bare number means stars. A bare -1 or 0 is rejected although it could only be a
thumb: a client that sends those also sends 1, which would be misread. Thumbs have to name their scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spillway_router.proxy.request.errors import bad_request

WORDS = {"up": 5, "good": 5, "down": 1, "bad": 1}
SCALES: Mapping[str, Mapping[int, int]] = {
    "stars": {n: n for n in range(1, 6)},
    "thumbs": {-1: 1, 0: 3, 1: 5},
    "binary": {0: 1, 1: 5},
}
FIELDS = frozenset({"rating", "score", "scale"})
_THUMBS = 'true or false, or {"score": -1, 0 or 1, "scale": "thumbs"}'


def stars(body: Mapping[str, Any]) -> int | None:
    """Return 1 to 5; None if the body has no rating. Raise RefusedError for a rating that is ambiguous or invalid."""
    rating, score, scale = body.get("rating"), body.get("score"), body.get("scale")
    if score is not None:
        if rating is not None:
            raise bad_request("Send 'rating' or 'score', not both.", "score")
        return _stars_of_score(score, scale)
    if scale is not None:
        raise bad_request("'scale' belongs to 'score': send the number as 'score'.", "scale")
    return None if rating is None else _stars_of_rating(rating)


def _stars_of_rating(rating: object) -> int:
    if isinstance(rating, bool):
        return 5 if rating else 1
    if isinstance(rating, str) and rating.lower() in WORDS:
        return WORDS[rating.lower()]
    if isinstance(rating, int) and rating in SCALES["stars"]:
        return rating
    if isinstance(rating, int) and rating in (-1, 0):
        message = f"A 'rating' of {rating} is no number of stars: 1 is the lowest. Send thumbs as {_THUMBS}."
        raise bad_request(message, "rating")
    message = f"'rating' must be a whole number from 1 to 5 (stars), up, down, true or false. Thumbs: {_THUMBS}."
    raise bad_request(message, "rating")


def _stars_of_score(score: object, scale: object) -> int:
    stars_by_score = SCALES.get(scale) if isinstance(scale, str) else None
    if stars_by_score is None:
        message = "'score' needs a 'scale': thumbs (-1, 0, 1), binary (0, 1) or stars (1 to 5)."
        raise bad_request(message, "scale")
    whole = int(score) if isinstance(score, float) and score.is_integer() else score
    if isinstance(whole, bool) or not isinstance(whole, int) or whole not in stars_by_score:
        allowed = ", ".join(map(str, stars_by_score))
        raise bad_request(f"'score' on the scale {scale} must be one of {allowed}.", "score")
    return stars_by_score[whole]
