"""Confidences for requests whose local answer nobody has seen: drawn from those that were recorded for the same task.

A draw is decided by the request's number, so that the same requests give the same replay, and every policy of a
comparison sees the same confidences. Of each task at most `MOST` confidences are kept; a new one replaces an old one.
"""

from __future__ import annotations

MOST = 1024
MOST_TASKS = 256
_GOLDEN = 2654435761
"""Knuth's multiplicative hash: it spreads numbers that follow each other over all of the confidences."""


class Confidences:
    """The confidences recorded so far."""

    __slots__ = ("_by_task", "_count", "drawn", "recorded", "unknown")

    def __init__(self) -> None:
        self._by_task: dict[str, list[float]] = {}
        self._count = 0
        self.recorded = self.drawn = self.unknown = 0
        """How many requests had a recorded confidence, a drawn one, and none."""

    def of(self, number: int, task: str, recorded: float | None, *, is_known: bool) -> float | None:
        """Return the confidence of a request: the recorded one, or a drawn one unless it `is_known` to have none."""
        if recorded is not None:
            self._keep(task, recorded)
            self.recorded += 1
            return recorded
        kept = self._by_task.get(task)
        if is_known or not kept:
            self.unknown += 1
            return None
        self.drawn += 1
        return kept[(number * _GOLDEN % 2**32) * len(kept) // 2**32]

    def _keep(self, task: str, confidence: float) -> None:
        if task not in self._by_task and len(self._by_task) >= MOST_TASKS:
            return
        kept = self._by_task.setdefault(task, [])
        if len(kept) < MOST:
            kept.append(confidence)
        else:
            kept[self._count * _GOLDEN % 2**32 % MOST] = confidence
        self._count += 1
