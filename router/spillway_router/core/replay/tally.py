"""What a replay adds up, in a memory that does not grow with the number of requests."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

STEP = 1.01
"""Times are counted in classes, each 1% longer than the one before."""
_SHORTEST_S = 1e-4


class Waits:
    """Times in seconds, from which quantiles are read that are right to half a percent."""

    __slots__ = ("_classes", "count")

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count one time."""
        self._classes[round(math.log(max(seconds, _SHORTEST_S)) / math.log(STEP))] += 1
        self.count += 1

    def quantile(self, share: float) -> float:
        """Return the time that this share of all does not exceed; 0 without any."""
        left = math.ceil(share * self.count)
        for number in sorted(self._classes):
            left -= self._classes[number]
            if left <= 0:
                return STEP**number
        return 0.0


@dataclass(slots=True)
class Spending:
    """How many requests went somewhere, and what they cost in nano-dollars."""

    requests: int = 0
    nano: int = 0

    def add(self, nano: int) -> None:
        """Count one request."""
        self.requests += 1
        self.nano += nano


@dataclass(slots=True)
class Tally:
    """The sums of one replay.

    `kinds` counts requests by what was decided in the end (`local`, `overflow`, `escalated`, …, `refused`), `refusals`
    the refused ones by their code. `waits` are the times to first token of local answers in seconds, `late` how many of
    them came after the promised time, `slow` how many had their tokens slower than promised. `right` of the `judged`
    answers were right.
    """

    requests: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    backends: dict[str, Spending] = field(default_factory=dict)
    rules: dict[str, Spending] = field(default_factory=dict)
    """By the name of each rule that applied; a request may have several."""
    cloud_nano: int = 0
    waits: Waits = field(default_factory=Waits)
    late: int = 0
    slow: int = 0
    judged: int = 0
    right: int = 0

    def spent(self, backend: str, rules: tuple[str, ...], nano: int) -> None:
        """Count an answer of a backend."""
        self.backends.setdefault(backend, Spending()).add(nano)
        for rule in rules:
            self.rules.setdefault(rule, Spending()).add(nano)
        self.cloud_nano += nano

    def judge(self, right: bool | None) -> None:
        """Count what is known of an answer."""
        if right is not None:
            self.judged += 1
            self.right += right
