"""Rate limits the way Groq shows them: requests per day and tokens per minute, refilled all the time, in headers."""

from __future__ import annotations

import math
from dataclasses import dataclass

_DAY_S = 86_400.0
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Over:
    """A limit that a request would pass: which one, its size, what was asked, and seconds until it would fit."""

    what: str
    limit: int
    asked: int
    wait_s: float


@dataclass(slots=True)
class Bucket:
    """A limit of `limit` units per `period_s` seconds. `now` is any clock in seconds that never goes back."""

    limit: int
    period_s: float
    used: float = 0.0
    updated: float = 0.0

    def _drain(self, now: float) -> None:
        self.used = max(0.0, self.used - (now - self.updated) * self.limit / self.period_s)
        self.updated = now

    def wait(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits, 0 if now; infinite if it is larger than the whole limit."""
        self._drain(now)
        if amount > self.limit:
            return math.inf
        return max(0.0, (self.used + amount - self.limit) * self.period_s / self.limit)

    def take(self, amount: int, now: float) -> None:
        """Use `amount` up."""
        self._drain(now)
        self.used += amount

    def remaining(self, now: float) -> int:
        """Whole units left."""
        self._drain(now)
        return max(0, int(self.limit - self.used))

    def reset(self, now: float) -> float:
        """Seconds until the limit is whole again."""
        self._drain(now)
        return self.used * self.period_s / self.limit


class Limits:
    """Both limits of one model."""

    def __init__(self, requests_per_day: int, tokens_per_minute: int) -> None:
        self._requests = Bucket(requests_per_day, _DAY_S)
        self._tokens = Bucket(tokens_per_minute, _MINUTE_S)

    def take(self, tokens: int, now: float) -> Over | None:
        """Use one request and `tokens` tokens up, or say which limit is in the way (then nothing is used up)."""
        for what, bucket, asked in (("requests", self._requests, 1), ("tokens", self._tokens, tokens)):
            wait = bucket.wait(asked, now)
            if wait > 0:
                return Over(what, bucket.limit, asked, wait)
        self._requests.take(1, now)
        self._tokens.take(tokens, now)
        return None

    def headers(self, now: float) -> dict[str, str]:
        """The `x-ratelimit-*` headers of an answer."""
        headers = {}
        for what, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            headers[f"x-ratelimit-limit-{what}"] = str(bucket.limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(bucket.remaining(now))
            headers[f"x-ratelimit-reset-{what}"] = duration(bucket.reset(now))
        return headers


def duration(seconds: float) -> str:
    """Seconds in the form of the reset headers: "480ms", "7.66s", "2m59.56s", "1h2m3s"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown
