"""Time that stands still until it is moved."""

from __future__ import annotations


class ManualClock:
    """Call it for the time in seconds; `advance` moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the time on. Raises ValueError for a step back: monotonic clocks have none."""
        if seconds < 0:
            raise ValueError("a monotonic clock does not go back")
        self.now += seconds
