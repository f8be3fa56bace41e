"""The fleet with its queues: hours of the weeks, request by request, on as many engines as the scaler had then.

Weeks of requests are too many to run one by one, so hours are drawn from them, some of every part of the day. Each runs
from ten minutes before it on, so that its queues are as full as they would be. A request goes to the engine with the
least predicted time to the first token, and leaves by the router's own rule (core/routing/backlog.py). An engine that
is given back gets nothing new and ends its answers; one that was rented serves after its cold start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.fleet.weeks import SLOT_S, STEP_S, speeds_of
from loadtests.simulator.trace import TraceRequest, load
from spillway_router.core.replay.clocked import ClockedEngine
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.routing.backlog import Backlog, EngineRates, Slo, overflow_reasons, predict

MARGIN = 0.85
"""The router's own (`overflow_reasons`)."""
LEAD_S = 600.0
AT_THE_END_S = 1e12


@dataclass(frozen=True, slots=True)
class QueueOutcome:
    """What became of the requests of the drawn hours. `late` are local ones past the promise; one that leaves does so
    at its arrival, and is not late."""

    requests: int
    left: int
    late: int
    hours: int

    @property
    def late_percent(self) -> float:
        """The percent of all requests that were late."""
        return 100 * self.late / max(1, self.requests)


class _Engine:
    __slots__ = ("backlog", "clocked")

    def __init__(self, model: EngineModel) -> None:
        self.clocked: ClockedEngine[TraceRequest] = ClockedEngine(model)
        self.backlog = Backlog(EngineRates(kv_capacity_tokens=model.kv_capacity_tokens, max_sequences=model.sequences))


class _Fleet:
    """Engines that serve, and engines that only end their answers."""

    def __init__(self, slo: Slo, margin: float) -> None:
        self.model, self.slo, self.margin = EngineModel(), slo, margin
        self.engines: list[_Engine] = []
        self.ending: list[_Engine] = []
        self.ttft_s: dict[int, float] = {}

    def resize(self, count: int) -> None:
        """Have so many engines serve; the newest go first."""
        while len(self.engines) < count:
            self.engines.append(_Engine(self.model))
        self.ending += self.engines[count:]
        del self.engines[count:]
        self.ending = [one for one in self.ending if one.clocked.ends_s < math.inf]

    def run_until(self, now_s: float) -> None:
        """Let everything happen up to a moment."""
        for one in (*self.engines, *self.ending):
            while one.clocked.ends_s <= now_s:
                at_s = one.clocked.ends_s
                done = one.clocked.complete()
                for request in done.first_tokens:
                    self.ttft_s[request.number] = at_s - request.arrival_s
                    one.backlog.first_token(request.number, at_s)
                for request in done.finished:
                    one.backlog.finish(request.number, at_s, request.output_tokens)

    def offer(self, request: TraceRequest) -> bool:
        """Give a request to the engine that would begin its answer first; False if it leaves."""
        now_s, best, least_s = request.arrival_s, None, math.inf
        for one in self.engines:
            backlog = one.backlog
            predicted = predict(
                backlog.view(now_s), backlog.rates(now_s), request.prompt_tokens, backlog.expected_output()
            )
            if not overflow_reasons(predicted, self.slo, self.margin) and predicted.ttft_s < least_s:
                best, least_s = one, predicted.ttft_s
        if best is None:
            return False
        best.backlog.admit(request.number, request.prompt_tokens, best.backlog.expected_output(), now_s)
        best.clocked.submit(request, now_s)
        return True


def drawn_hours(weeks: int, per_part: int, seed: int = 11) -> list[int]:
    """Return hours of the weeks, so many of each quarter of each day of a week (Monday to Sunday), in order."""
    chance = np.random.default_rng(seed)
    hours: set[int] = set()
    for day in range(7):
        for quarter in range(4):
            for _ in range(per_part):
                week = int(chance.integers(weeks))
                hours.add(24 * (7 * week + day) + 6 * quarter + int(chance.integers(6)))
    return sorted(hours)


def queued(
    trace: str,
    weeks: int,
    serving: Sequence[int],
    hours: Sequence[int],
    slo_ttft_s: float = 1.0,
    margin: float = MARGIN,
) -> QueueOutcome:
    """Run hours of the weeks of `weeks_of(trace, weeks)`. `serving` is the number of engines by step of STEP_S. With a
    larger `margin` requests leave later than the router sends them (a seeded fault)."""
    requests = load(trace)
    arrivals = np.array([one.arrival_s for one in requests])
    length_s = float(arrivals[-1] + arrivals[-1] / len(arrivals))
    speeds = speeds_of(weeks)
    passed_s = np.concatenate([[0.0], np.cumsum(speeds * SLOT_S)])
    asked = left = late = 0
    for hour in hours:
        first = max(0, round((hour * 3600 - LEAD_S) / SLOT_S))
        last = round((hour + 1) * 3600 / SLOT_S)
        fleet, counted = _Fleet(Slo(slo_ttft_s, math.inf), margin), []
        for number, request in enumerate(_arriving(requests, arrivals, length_s, passed_s, (first, last))):
            fleet.run_until(request.arrival_s)
            fleet.resize(serving[min(len(serving) - 1, int(request.arrival_s // STEP_S))])
            one = TraceRequest(number, request.arrival_s, request.prompt_tokens, request.output_tokens)
            stays = fleet.offer(one)
            if request.arrival_s >= hour * 3600:
                counted.append((number, stays))
        fleet.run_until(AT_THE_END_S)
        asked += len(counted)
        left += sum(not stays for _, stays in counted)
        late += sum(stays and fleet.ttft_s.get(number, math.inf) > slo_ttft_s for number, stays in counted)
    return QueueOutcome(asked, left, late, len(hours))


def _arriving(
    requests: Sequence[TraceRequest],
    arrivals: np.ndarray,
    length_s: float,
    passed_s: np.ndarray,
    slots: tuple[int, int],
) -> list[TraceRequest]:
    """Return the requests of some slots of the weeks, at their moments in seconds of the weeks."""
    arriving: list[TraceRequest] = []
    for slot in range(*slots):
        begin_s, end_s = float(passed_s[slot]), float(passed_s[slot + 1])
        rounds = range(int(begin_s // length_s), int(end_s // length_s) + 1)
        for turn in rounds:
            low, high = begin_s - turn * length_s, end_s - turn * length_s
            for place in range(int(np.searchsorted(arrivals, low)), int(np.searchsorted(arrivals, high))):
                share = (float(arrivals[place]) - low) / (high - low)
                one = requests[place]
                at_s = (slot + share) * SLOT_S
                arriving.append(TraceRequest(one.number, at_s, one.prompt_tokens, one.output_tokens))
    return arriving
