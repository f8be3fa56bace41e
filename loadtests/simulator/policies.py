# ruff: noqa: ARG002  (each rule uses the events it needs)
"""Overflow rules under comparison. Each answers one question per request: does it stay local?

`BacklogPolicy` is the router's own code. The others are what people use instead, each in its usual form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from loadtests.simulator.trace import TraceRequest
from spillway_router.core.replay.engine import EngineModel, Gauges, Iteration
from spillway_router.core.routing.backlog import (
    Backlog,
    BacklogTuning,
    EngineRates,
    Prediction,
    Slo,
    overflow_reasons,
    predict,
)
from spillway_router.core.routing.estimators import EWMA_WEIGHT, MarginLearner


class Policy(Protocol):
    """A rule, and the events it may learn from. Times are in seconds."""

    poll_s: float
    """Period of `poll` in seconds; infinite for rules that read no gauges."""

    def keep(self, request: TraceRequest, now: float) -> bool: ...
    def poll(self, gauges: Gauges) -> None: ...
    def iteration(self, iteration: Iteration, now: float) -> None: ...
    def first_token(self, request: TraceRequest, now: float) -> None: ...
    def finished(self, request: TraceRequest, now: float) -> None: ...


class AlwaysLocal:
    """Never sends a request away. It is also the base of the rules that ignore some events."""

    poll_s = math.inf

    def keep(self, request: TraceRequest, now: float) -> bool:
        return True

    def poll(self, gauges: Gauges) -> None:
        """Read no gauges."""

    def iteration(self, iteration: Iteration, now: float) -> None:
        """Ignore the engine's iterations."""

    def first_token(self, request: TraceRequest, now: float) -> None:
        """Learn nothing."""

    def finished(self, request: TraceRequest, now: float) -> None:
        """Count nothing."""


class UtilisationPolicy(AlwaysLocal):
    """NVML: overflow while at least one kernel ran for more than `limit` of the last period."""

    def __init__(self, limit: float = 0.9, poll_s: float = 1.0) -> None:
        self.poll_s = poll_s
        self._limit = limit
        self._busy_s = 0.0
        self._full = False

    def keep(self, request: TraceRequest, now: float) -> bool:
        return not self._full

    def poll(self, gauges: Gauges) -> None:
        self._full = (gauges.busy_s - self._busy_s) / self.poll_s > self._limit
        self._busy_s = gauges.busy_s


class GaugePolicy(AlwaysLocal):
    """vLLM's gauges: overflow while the last poll saw a queue or a full KV cache."""

    def __init__(self, poll_s: float, queue: int = 5, kv_usage: float = 0.8) -> None:
        self.poll_s = poll_s
        self._queue = queue
        self._kv_usage = kv_usage
        self._full = False

    def keep(self, request: TraceRequest, now: float) -> bool:
        return not self._full

    def poll(self, gauges: Gauges) -> None:
        self._full = gauges.waiting >= self._queue or gauges.kv_usage >= self._kv_usage


class InFlightPolicy(AlwaysLocal):
    """A fixed cap on requests in flight."""

    def __init__(self, cap: int = 32) -> None:
        self._cap = cap
        self._in_flight = 0

    def keep(self, request: TraceRequest, now: float) -> bool:
        if self._in_flight >= self._cap:
            return False
        self._in_flight += 1
        return True

    def finished(self, request: TraceRequest, now: float) -> None:
        self._in_flight -= 1


class AimdPolicy(AlwaysLocal):
    """A cap on requests in flight that grows by one per cap of good TTFTs and shrinks by `cut` after a bad one.

    A TTFT is bad above `target` x SLO. There is at most one cut per SLO, since the requests that are already inside
    report the same queue.
    """

    def __init__(self, slo_s: float, target: float = 1.0, cut: float = 0.9, start: float = 32.0) -> None:
        self._slo_s = slo_s
        self._bad_s = target * slo_s
        self._cut = cut
        self._cap = start
        self._in_flight = 0
        self._last_cut = -math.inf

    def keep(self, request: TraceRequest, now: float) -> bool:
        if self._in_flight >= self._cap:
            return False
        self._in_flight += 1
        return True

    def first_token(self, request: TraceRequest, now: float) -> None:
        if now - request.arrival_s <= self._bad_s:
            self._cap = min(256.0, self._cap + 1 / self._cap)
        elif now - self._last_cut > self._slo_s:
            self._cap = max(1.0, self._cap * self._cut)
            self._last_cut = now

    def finished(self, request: TraceRequest, now: float) -> None:
        self._in_flight -= 1


@dataclass(frozen=True, slots=True)
class BacklogRule:
    """How the backlog rule is run.

    The defaults are the reference rule. With `from_iterations` R_p comes from the engine's iterations with more than
    1024 tokens, as in the reference table; otherwise from TTFTs, which are all that a router sees. With `true_output`
    the KV demand counts each request's real output length; otherwise the running mean. `length_error` multiplies the
    prompt lengths that the rule assumes. With `sees_pace` the predicted time per token counts, too.
    """

    margin: float = 0.85
    from_iterations: bool = True
    true_output: bool = True
    learn_margin: bool = False
    length_error: float = 1.0
    sees_pace: bool = True


class BacklogPolicy(AlwaysLocal):
    """The router's rule, run through the router's functions."""

    def __init__(self, slo: Slo, engine: EngineModel, rule: BacklogRule | None = None) -> None:
        self._rule = rule or BacklogRule()
        self._slo = slo if self._rule.sees_pace else replace(slo, tpot_s=math.inf)
        self._margin = MarginLearner(start=self._rule.margin) if self._rule.learn_margin else None
        self._predictions: dict[int, Prediction] = {}
        rates = EngineRates(kv_capacity_tokens=engine.kv_capacity_tokens, max_sequences=engine.sequences)
        tuning = BacklogTuning()
        if self._rule.from_iterations:
            # The rate comes from the engine's iterations: no samples from TTFTs, no constant step.
            rates = replace(rates, step_time_s=0.0, step_time_s_per_sequence=0.0)
            tuning = BacklogTuning(min_sample_tokens=2**62, long_sample_s=math.inf, relearn_after_s=math.inf)
        self._backlog = Backlog(rates, tuning)
        self._iteration_tokens_per_s = rates.prefill_tokens_per_s

    def keep(self, request: TraceRequest, now: float) -> bool:
        prompt = math.ceil(request.prompt_tokens * self._rule.length_error)
        output = 300 if self._rule.true_output else self._backlog.expected_output()
        rates = self._backlog.rates(now)
        if self._rule.from_iterations:
            rates = replace(rates, prefill_tokens_per_s=self._iteration_tokens_per_s)
        prediction = predict(self._backlog.view(now), rates, prompt, output)
        margin = self._margin.margin if self._margin else self._rule.margin
        if overflow_reasons(prediction, self._slo, margin):
            return False
        self._predictions[request.number] = prediction
        self._backlog.admit(request.number, prompt, request.output_tokens if self._rule.true_output else output, now)
        return True

    def iteration(self, iteration: Iteration, now: float) -> None:
        if self._rule.from_iterations and iteration.tokens > 1024:
            tokens_per_s = iteration.tokens / iteration.duration_s
            self._iteration_tokens_per_s += EWMA_WEIGHT * (tokens_per_s - self._iteration_tokens_per_s)

    def first_token(self, request: TraceRequest, now: float) -> None:
        observed = self._backlog.first_token(request.number, now)
        prediction = self._predictions.pop(request.number)
        if observed is not None and self._margin:
            self._margin.observe(prediction.ttft_s, observed, self._slo.ttft_s)

    def finished(self, request: TraceRequest, now: float) -> None:
        self._backlog.finish(request.number, now, request.output_tokens)
