"""What each key has in progress, and the tokens that it has left in this minute: the limits of this router alone.

A request counts from its decision to its end, however it ends. Its tokens are taken from a bucket that fills up within
a minute: at first the most that it may use, then, once its usage is known, what it used. A request that may use more
than the bucket holds goes when the bucket is full, and the bucket is then in debt for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.routing.model import KeyRules, Refusal

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class KeyShare:
    """What one request in progress has taken: its place, and tokens of its key's bucket."""

    key_id: str
    rules: KeyRules
    tokens: int


class KeyLoads:
    """The requests in progress and the tokens left of each key with such limits; no other key has an entry. The number
    of keys bounds that of the buckets."""

    __slots__ = ("_in_progress", "_left")

    def __init__(self) -> None:
        self._in_progress: dict[str, int] = {}
        self._left: dict[str, tuple[float, float]] = {}
        """The tokens that each key has left, and when they were counted (monotonic seconds)."""

    def in_progress(self, key_id: str) -> int:
        """Return how many requests with limits of this key are in progress."""
        return self._in_progress.get(key_id, 0)

    def enter(self, key_id: str, rules: KeyRules, tokens: int, monotonic_s: float) -> KeyShare | Refusal:
        """Take a place and `tokens` for a request, or return its 429. `leave` has to follow."""
        in_progress = self._in_progress.get(key_id, 0)
        if rules.concurrent and in_progress >= rules.concurrent:
            message = (
                f"This key may have {rules.concurrent} requests in progress, and has as many. Wait for one to end."
            )
            return Refusal(429, "rate_limited", message, retry_after_s=1.0)
        most = rules.tokens_per_minute
        if most:
            left = self.tokens_left(key_id, most, monotonic_s)
            needed = min(tokens, most)
            if left < needed:
                wait_s = (needed - left) * _MINUTE_S / most
                message = (
                    f"This key may use {most} tokens per minute, and this request counts as {tokens} until its usage "
                    f"is known. Wait {wait_s:.1f} s, or lower its bound of output tokens."
                )
                return Refusal(429, "rate_limited", message, retry_after_s=max(1.0, wait_s))
            self._left[key_id] = (left - tokens, monotonic_s)
        self._in_progress[key_id] = in_progress + 1
        return KeyShare(key_id, rules, tokens)

    def leave(self, share: KeyShare, used_tokens: int, monotonic_s: float) -> None:
        """Give the place back, and the tokens that were taken but not used; more than were taken go into debt."""
        left_in_progress = self._in_progress[share.key_id] - 1
        if left_in_progress:
            self._in_progress[share.key_id] = left_in_progress
        else:
            del self._in_progress[share.key_id]
        most = share.rules.tokens_per_minute
        if most:
            left = self.tokens_left(share.key_id, most, monotonic_s) + share.tokens - used_tokens
            self._left[share.key_id] = (min(float(most), left), monotonic_s)

    def tokens_left(self, key_id: str, most: int, monotonic_s: float) -> float:
        """Return how many of `most` tokens per minute a key has left; below 0 if it is in debt."""
        left, counted_s = self._left.get(key_id, (float(most), monotonic_s))
        return min(float(most), left + (monotonic_s - counted_s) * most / _MINUTE_S)
