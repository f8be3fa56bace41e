"""Runs one trace through the gate of `core.routing.leaving` and the modelled engine, event by event.

The rule, the backlog and what it learns are the router's. Requests that leave are gone: a cloud answers them after
`GateTerms.cloud_ttft_s`, which counts against the promise as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.simulator.trace import TraceRequest
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.replay.clocked import ClockedEngine
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.routing.backlog import Backlog, EngineRates
from spillway_router.core.routing.fair_queue import TICK_S
from spillway_router.core.routing.leaving import GatedRequest, GateTerms, density, next_to_enter, that_leave


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """What a cloud asks, in nano-dollars per token of the prompt and of the answer."""

    prompt_nano: float = 150.0
    output_nano: float = 600.0

    def of(self, prompt_tokens: int, output_tokens: int) -> float:
        """Return the price of one answer in nano-dollars."""
        return self.prompt_nano * prompt_tokens + self.output_nano * output_tokens


@dataclass(frozen=True, slots=True)
class GatedResult:
    """The outcome: the numbers of the requests that left, the local ones' times to first token, and how many of those
    that left did so too late for the promise. `most_kv_tokens` is the most that the cache ever held."""

    left: frozenset[int]
    ttft_s: tuple[float, ...]
    left_late: int
    most_kv_tokens: int
    end_s: float


class _Gate:
    def __init__(self, terms: GateTerms, price: TokenPrice, model: EngineModel) -> None:
        self.terms, self.price = terms, price
        self.engine: ClockedEngine[TraceRequest] = ClockedEngine(model)
        self.backlog = Backlog(EngineRates(kv_capacity_tokens=model.kv_capacity_tokens, max_sequences=model.sequences))
        self.waiting: dict[int, tuple[GatedRequest, TraceRequest]] = {}
        self.left: set[int] = set()
        self.left_late = 0
        self.ttft: dict[int, float] = {}

    def arrive(self, request: TraceRequest, now_s: float) -> None:
        output = self.backlog.expected_output()
        prompt = request.prompt_tokens
        gated = GatedRequest(
            number=request.number,
            prompt_tokens=prompt,
            output_tokens=output,
            arrived_s=now_s,
            leave_by_s=self.terms.leave_by_s(now_s),
            density=density(self.price.of(prompt, output), prompt, output, WorkCoefficients()),
        )
        self.waiting[request.number] = (gated, request)
        self.look(now_s)

    def look(self, now_s: float) -> None:
        """Let requests into the engine, and those leave that can wait no longer."""
        while self.waiting:
            gated = [one for one, _ in self.waiting.values()]
            view, rates = self.backlog.view(now_s), self.backlog.rates(now_s)
            chosen = next_to_enter(gated, view, rates, self.terms, now_s)
            if chosen is None:
                break
            _, request = self.waiting.pop(chosen.number)
            self.backlog.admit(chosen.number, chosen.prompt_tokens, chosen.output_tokens, now_s)
            self.engine.submit(request, now_s)
        for one in that_leave([gated for gated, _ in self.waiting.values()], now_s, TICK_S):
            del self.waiting[one.number]
            self.left.add(one.number)
            self.left_late += now_s - one.arrived_s + self.terms.cloud_ttft_s > self.terms.slo_ttft_s + 1e-9

    def complete(self) -> float:
        now_s = self.engine.ends_s
        done = self.engine.complete()
        for request in done.first_tokens:
            self.ttft[request.number] = now_s - request.arrival_s
            self.backlog.first_token(request.number, now_s)
        for request in done.finished:
            self.backlog.finish(request.number, now_s, request.output_tokens)
        if done.first_tokens or done.finished:
            self.look(now_s)
        return now_s


def simulate_gated(
    requests: Sequence[TraceRequest], terms: GateTerms, price: TokenPrice, model: EngineModel | None = None
) -> GatedResult:
    """Run `requests` (ordered by arrival) to the end of the last answer."""
    gate = _Gate(terms, price, model or EngineModel())
    place, now_s, tick_at_s, most_kv = 0, 0.0, math.inf, 0
    while True:
        if not gate.waiting:
            tick_at_s = math.inf
        elif tick_at_s == math.inf:
            tick_at_s = now_s + TICK_S
        arrival_s = requests[place].arrival_s if place < len(requests) else math.inf
        moment_s = min(arrival_s, gate.engine.ends_s, tick_at_s)
        if moment_s == math.inf:
            break
        if moment_s == arrival_s:
            now_s, place = arrival_s, place + 1
            gate.arrive(requests[place - 1], now_s)
        elif moment_s == gate.engine.ends_s:
            now_s = gate.complete()
            most_kv = max(most_kv, gate.engine.kv_tokens)
        else:
            now_s, tick_at_s = tick_at_s, math.inf
            gate.look(now_s)
    ttft = tuple(gate.ttft[request.number] for request in requests if request.number in gate.ttft)
    return GatedResult(
        left=frozenset(gate.left), ttft_s=ttft, left_late=gate.left_late, most_kv_tokens=most_kv, end_s=now_s
    )
