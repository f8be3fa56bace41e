"""Rate limits as Groq has them: requests per day and tokens per minute, refilled continuously, shown in headers."""

from __future__ import annotations

import math
from dataclasses import dataclass

_DAY_S = 86_400.0
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A limit of requests or tokens (`unit`) that a request would exceed; it would fit after `wait_s` seconds."""

    unit: str
    limit: int
    requested: int
    wait_s: float


@dataclass(slots=True)
class Bucket:
    """A limit of `limit` units per `period_s` seconds. `monotonic_s` is any clock in seconds that never goes back."""

    limit: int
    period_s: float
    used: float = 0.0
    updated: float = 0.0

    def _drain(self, monotonic_s: float) -> None:
        self.used = max(0.0, self.used - (monotonic_s - self.updated) * self.limit / self.period_s)
        self.updated = monotonic_s

    def wait(self, amount: int, monotonic_s: float) -> float:
        """Return the seconds until `amount` fits: 0 if it fits at once, infinity if it is larger than the limit."""
        self._drain(monotonic_s)
        if amount > self.limit:
            return math.inf
        return max(0.0, (self.used + amount - self.limit) * self.period_s / self.limit)

    def take(self, amount: int, monotonic_s: float) -> None:
        """Use up `amount` units."""
        self._drain(monotonic_s)
        self.used += amount

    def remaining(self, monotonic_s: float) -> int:
        """Return how many whole units are left."""
        self._drain(monotonic_s)
        return max(0, int(self.limit - self.used))

    def reset(self, monotonic_s: float) -> float:
        """Return the seconds until the limit is completely refilled."""
        self._drain(monotonic_s)
        return self.used * self.period_s / self.limit


class Limits:
    """The two limits of one model."""

    def __init__(self, requests_per_day: int, tokens_per_minute: int) -> None:
        self._requests = Bucket(requests_per_day, _DAY_S)
        self._tokens = Bucket(tokens_per_minute, _MINUTE_S)

    def take(self, tokens: int, monotonic_s: float) -> LimitExceeded | None:
        """Use up one request and `tokens` tokens, or return the limit that they exceed; then nothing is used up."""
        for unit, bucket, requested in (("requests", self._requests, 1), ("tokens", self._tokens, tokens)):
            wait_s = bucket.wait(requested, monotonic_s)
            if wait_s > 0:
                return LimitExceeded(unit=unit, limit=bucket.limit, requested=requested, wait_s=wait_s)
        self._requests.take(1, monotonic_s)
        self._tokens.take(tokens, monotonic_s)
        return None

    def headers(self, monotonic_s: float) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers of an answer."""
        headers = {}
        for unit, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            headers[f"x-ratelimit-limit-{unit}"] = str(bucket.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(bucket.remaining(monotonic_s))
            headers[f"x-ratelimit-reset-{unit}"] = duration(bucket.reset(monotonic_s))
        return headers


def duration(seconds: float) -> str:
    """Write seconds in the form of the reset headers: "480ms", "7.66s", "2m59.56s", "1h2m3s"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    shown = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{shown}"
    return f"{minutes}m{shown}" if minutes else shown
