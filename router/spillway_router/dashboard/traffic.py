"""What the requests of the last quarter of an hour became, in steps of 15 seconds, for the Now page."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from spillway_router.core.routing.model import RequestRecord

STEP_S = 15
STEPS = 60
MOST_TIMES = 200
"""The most times to first token that a step keeps: the first ones."""


@dataclass(slots=True)
class Step:
    """The requests that ended in the 15 s from `start_s` (epoch seconds): by decision, refused ones as `refused`, and
    their times to first token in seconds."""

    start_s: int
    decided: Counter[str] = field(default_factory=Counter)
    ttft_s: list[float] = field(default_factory=list)


class Traffic:
    """The last 60 steps that had a request. Not safe across threads."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=STEPS)

    def on_request(self, record: RequestRecord) -> None:
        """Count a finished request. This is the hook that the exchange calls."""
        start_s = int(record.wall_s) // STEP_S * STEP_S
        if not self._steps or self._steps[-1].start_s < start_s:
            self._steps.append(Step(start_s))
        step = self._steps[-1]
        step.decided[record.decided if record.status < 400 else "refused"] += 1
        for attempt in record.attempts:
            if attempt.first_event_s is not None and len(step.ttft_s) < MOST_TIMES:
                step.ttft_s.append(attempt.first_event_s)
                break

    def steps(self, wall_s: float) -> list[Step]:
        """Return all steps of the last quarter of an hour, oldest first, empty ones included."""
        last = int(wall_s) // STEP_S * STEP_S
        kept = {step.start_s: step for step in self._steps}
        starts = range(last - (STEPS - 1) * STEP_S, last + STEP_S, STEP_S)
        return [kept.get(start_s) or Step(start_s) for start_s in starts]


def counted(steps: Iterable[Step]) -> Counter[str]:
    """Return the requests of some steps by decision."""
    whole: Counter[str] = Counter()
    for step in steps:
        whole.update(step.decided)
    return whole


def quantile_s(steps: Iterable[Step], share: float) -> float | None:
    """Return a quantile of the times to first token in seconds, None without any."""
    times = sorted(time for step in steps for time in step.ttft_s)
    return times[min(len(times) - 1, int(share * len(times)))] if times else None
