"""A clock that moves only when a test moves it."""

from __future__ import annotations


class ManualClock:
    """A monotonic clock: call it for the time in seconds; `advance` moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward.

        Raises:
            ValueError: the step is negative, which a monotonic clock does not allow.
        """
        if seconds < 0:
            raise ValueError("a monotonic clock can't go back")
        self.now += seconds
