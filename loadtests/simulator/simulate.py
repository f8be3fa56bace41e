"""Runs one trace through one rule and one engine, event by event; idle time is skipped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from loadtests.simulator.policies import Policy
from loadtests.simulator.trace import TraceRequest
from spillway_router.core.replay.engine import EngineModel, SimulatedEngine
from spillway_router.core.routing.backlog import Slo


class Timing(Enum):
    """When the rule is asked about a request that arrives while an iteration runs.

    ARRIVAL: at once, as a router does; the first tokens of the running iteration are not known yet. ITERATION: when the
    iteration has ended, as in this project's reference table; the rule then knows a little more, and the wait for the
    end of the iteration is missing from its prediction.
    """

    ARRIVAL = "arrival"
    ITERATION = "iteration"


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The outcome of a trace.

    `ttft_s` holds the local requests' times to the first token, in order of arrival; `tpot_s` holds their times per
    token after the first (0 for an answer of one token).
    """

    requests: int
    cloud: int
    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    busy_s: float
    end_s: float

    def missed(self, slo_s: float) -> int:
        """Return how many local requests got their first token later than `slo_s`."""
        return sum(ttft > slo_s for ttft in self.ttft_s)

    def missed_pace(self, slo_s: float) -> int:
        """Return how many local requests got their tokens more than `slo_s` apart on average."""
        return sum(tpot > slo_s for tpot in self.tpot_s)

    def missed_either(self, slo: Slo) -> int:
        """Return how many local requests broke the promise by their first token or their pace."""
        return sum(t > slo.ttft_s or p > slo.tpot_s for t, p in zip(self.ttft_s, self.tpot_s, strict=True))


class _Run:
    def __init__(self, requests: Sequence[TraceRequest], policy: Policy, model: EngineModel, timing: Timing) -> None:
        self.requests = requests
        self.policy = policy
        self.engine: SimulatedEngine[TraceRequest] = SimulatedEngine(model)
        self.timing = timing
        self.next_request = 0
        self.next_poll = policy.poll_s
        self.busy_before_s = 0.0
        self.ttft: dict[int, float] = {}
        self.tpot: dict[int, float] = {}

    def next_arrival(self) -> float:
        if self.next_request == len(self.requests):
            return math.inf
        return self.requests[self.next_request].arrival_s

    def poll_until(self, end: float, began: float) -> None:
        """Poll up to `end`; `began` is the start of the current iteration, inf for none."""
        while self.next_poll <= end:
            busy = self.busy_before_s + max(0.0, self.next_poll - began)
            self.policy.poll(self.engine.gauges(busy))
            self.next_poll += self.policy.poll_s

    def decide_until(self, end: float, began: float) -> None:
        """Decide all arrivals up to `end`, each after the polls before it."""
        while (arrival := self.next_arrival()) <= end:
            self.poll_until(arrival, began)
            request = self.requests[self.next_request]
            self.next_request += 1
            if self.policy.keep(request, arrival):
                self.engine.submit(request)

    def iterate(self, now: float) -> float:
        iteration = self.engine.begin()
        end = now + iteration.duration_s
        if self.timing is Timing.ARRIVAL:
            self.decide_until(end, began=now)
        self.poll_until(end, began=now)
        self.busy_before_s += iteration.duration_s
        self.policy.iteration(iteration, end)
        done = self.engine.complete()
        for request in done.first_tokens:
            self.ttft[request.number] = end - request.arrival_s
            self.policy.first_token(request, end)
        for request in done.finished:
            steps = max(1, request.output_tokens - 1)
            self.tpot[request.number] = (end - request.arrival_s - self.ttft[request.number]) / steps
            self.policy.finished(request, end)
        if self.timing is Timing.ITERATION:
            self.decide_until(end, began=math.inf)
        return end


def simulate(
    requests: Sequence[TraceRequest],
    policy: Policy,
    model: EngineModel | None = None,
    timing: Timing = Timing.ARRIVAL,
) -> SimulationResult:
    """Run `requests` (ordered by arrival) to the end of the last answer."""
    run = _Run(requests, policy, model or EngineModel(), timing)
    now = 0.0
    while True:
        if run.engine.idle:
            arrival = run.next_arrival()
            if arrival == math.inf:
                break
            run.decide_until(arrival, began=math.inf)
            now = max(now, arrival)
            continue
        now = run.iterate(now)
    local = [r.number for r in requests if r.number in run.ttft]
    ttft, tpot = tuple(map(run.ttft.__getitem__, local)), tuple(map(run.tpot.__getitem__, local))
    return SimulationResult(
        requests=len(requests),
        cloud=len(requests) - len(local),
        ttft_s=ttft,
        tpot_s=tpot,
        busy_s=run.engine.busy_s,
        end_s=now,
    )
