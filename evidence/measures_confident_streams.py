"""What scoring a stream costs: CPU per streamed event with confidence on and off, in the same run."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvloop
from loadtests.bench.report import ratio
from loadtests.bench.run import BenchPlan, measure
from loadtests.bench.scenarios import BURST8, PACED200, Scenario
from loadtests.bench.systems import SYSTEMS, System

from evidence.results import Measurement, not_measured
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, cloud, local, routing, settings
from spillway_router.testing.streams import data, delta
from spillway_router.testing.upstream import BEAT_S

OVERHEAD = "bench.confidence_stream_overhead"
ROUNDS = 3
HELD = (1, 4, 16, 64)
TRIALS = 20
OFF, ON = "spillway", "spillway-confident"


def overhead(
    say: Callable[[str], None],
    systems: Sequence[System] = (SYSTEMS[OFF], SYSTEMS[ON]),
    scenarios: Sequence[Scenario] = (PACED200, BURST8),
    rounds: int = ROUNDS,
    trials: int = TRIALS,
) -> dict[str, Measurement]:
    """Measure CPU per event of the first scenario, on / off; the other scenarios are in the details.

    `n` counts scored streams. `trials` is the number of streams per number of held tokens, for the time to the first
    token.
    """
    run = measure(BenchPlan(systems, scenarios, rounds, quick=False), say).as_json()
    off, on = (system.name for system in systems)
    missing = {name: reason for name, reason in run["skipped"].items() if name in (off, on)}
    if missing:
        return {OVERHEAD: not_measured(str(missing))}
    ratios = {scenario.name: ratio(run, on, off, scenario.name) for scenario in scenarios}
    value = ratios[scenarios[0].name]
    details = {
        "ratio": {
            name: round(measured_ratio, 3) for name, measured_ratio in ratios.items() if measured_ratio is not None
        },
        "cpu_us_per_event": {s.name: {name: _per_event(run, name, s) for name in (off, on)} for s in scenarios},
        "decisions": {name: run["systems"][name]["scenarios"][scenarios[0].name]["decisions"] for name in (off, on)},
    }
    if value is None:
        return {OVERHEAD: Measurement(None, 0, {"reason": "streams failed", **details})}
    details["added_ttft_by_held_tokens"] = added_ttft(trials=trials)
    streams = run["systems"][on]["scenarios"][scenarios[0].name]["requests"]
    return {OVERHEAD: Measurement(round(value, 3), streams, details)}


def _per_event(run: Mapping[str, Any], name: str, scenario: Scenario) -> float | None:
    used = run["systems"][name]["scenarios"][scenario.name]["cpu_us_per_request"]
    return None if used is None else round(used / scenario.events, 2)


def added_ttft(held: Sequence[int] = HELD, trials: int = TRIALS) -> dict[str, dict[str, float]]:
    """Return the median milliseconds that holding k tokens adds to the time to the first token, at
    BEAT_S s per token.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_added_ttft(held, trials))


async def _added_ttft(held: Sequence[int], trials: int) -> dict[str, dict[str, float]]:
    score = {"token": "w", "logprob": -0.01, "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "w"}, "logprobs": {"content": [score]}, "finish_reason": None}
    says = Answer.stream(delta({"role": "assistant", "content": ""})).then(data({"id": "c", "choices": [choice]}))
    figures: dict[str, dict[str, float]] = {}
    base = 0.0
    async with FaultUpstream(says) as engine, FaultUpstream() as other:
        for k in (0, *held):
            rule = f"confidence: {{threshold: 0.5, escalate_to: [cloud], hold_tokens: {k}}}\n" if k else ""
            async with routing(settings(local(engine), cloud(other), more=rule)) as router:
                times = [await _first_content_s(router) for _ in range(trials)]
            median = statistics.median(times) * 1000
            if k:
                figures[str(k)] = {"ttft_ms": round(median, 2), "added_ms": round(median - base, 2)}
            else:
                base = median
    return {"off": {"ttft_ms": round(base, 2), "ms_per_token": BEAT_S * 1000}, **figures}


async def _first_content_s(router: Router) -> float:
    body = {"model": "auto", "messages": MESSAGES, "stream": True}
    started_s = time.perf_counter()
    async with router.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        async for part in reply.aiter_bytes():
            if b'"content":"w"' in part:
                break
        return time.perf_counter() - started_s
