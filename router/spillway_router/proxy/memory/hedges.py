"""How many hedges may be sent, and what became of those that were."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from spillway_router.core.routing.hedging import HedgeBucket, HedgeRule

HedgeResult = Literal["won", "lost", "failed", "no_token", "refused"]


class Hedges:
    """The token bucket of a router and its counts, by result."""

    def __init__(self) -> None:
        self._bucket = HedgeBucket(0.0)
        self.counts: Counter[HedgeResult] = Counter()

    def on_stream(self, rule: HedgeRule) -> None:
        """Count a stream that may be hedged."""
        self._bucket = self._bucket.after_stream(rule)

    def take(self) -> bool:
        """Take a token for a hedge; False if there is none."""
        bucket = self._bucket.taken()
        if bucket is None:
            return False
        self._bucket = bucket
        return True
