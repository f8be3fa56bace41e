"""What the stub upstream has seen: counts of all requests, and the times of the requests that carry a tag."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

MAX_RECORDS = 100_000


@dataclass(slots=True)
class TaggedRequest:
    """One tagged request. Times are nanoseconds of CLOCK_MONOTONIC, 0 for what has not happened."""

    received_ns: int = 0
    started_ns: int = 0
    closed_ns: int = 0
    completed_ns: int = 0
    events_sent: int = 0

    def reached(self, state: str) -> bool:
        """Return whether it is `received`, `started`, or (any other word) over: closed early or complete."""
        if state == "received":
            return self.received_ns > 0
        if state == "started":
            return self.started_ns > 0
        return self.closed_ns > 0 or self.completed_ns > 0


@dataclass(slots=True)
class StubBoard:
    """What the stub has seen. `open_peak` is the largest number of answers under way at one time."""

    model: str
    connections: int = 0
    requests: int = 0
    completed: int = 0
    closed_early: int = 0
    open: int = 0
    open_peak: int = 0
    records: dict[str, TaggedRequest] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self) -> None:
        """Wake all tasks that wait for a tagged request."""
        if self.records:
            self.changed.set()
            self.changed = asyncio.Event()

    def counts(self) -> dict[str, int]:
        names = ("connections", "requests", "completed", "closed_early", "open", "open_peak")
        return {name: getattr(self, name) for name in names}

    def reset(self) -> None:
        self.connections = self.requests = self.completed = self.closed_early = 0
        self.open_peak = self.open
        self.records.clear()
