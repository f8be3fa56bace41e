"""What decisions cost: one decision by itself, and a request through a router with many backends."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import product

import yaml
from loadtests.bench.every_rule import RULES, every_rule
from loadtests.bench.report import ratio
from loadtests.bench.run import BenchPlan, measure
from loadtests.bench.scenarios import NS32, Scenario
from loadtests.bench.systems import SYSTEMS, System

from evidence.results import Measurement, not_measured
from spillway_router import compiled
from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import parse
from spillway_router.core.routing.model import Caller, PrivacyVerdict, RequestFacts, Signals
from spillway_router.core.routing.policy import decide
from spillway_router.core.routing.rules import Moment, ruled
from spillway_router.core.routing.traits.conversation import Traits
from spillway_router.signals.board import Board

DECIDE_CPU = "policy.decide_cpu"
MANY_BACKENDS = "bench.ns32_12_backends"
MANY_ENGINES = "bench.backends_64"
BACKENDS = 12
BLOCKS, ROUNDS_OF_REQUESTS = 40, 50
BENCH_ROUNDS = 5
TODAY = date(2026, 11, 1)
HEADROOM_NANO = 1_000_000 * 10**9
NOON = 1_793_534_400.0
"""Epoch seconds of that day's noon."""


def decide_cpu(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure finding the rules, applying them and `decide` for varied requests: the median over blocks, in us.

    The router keeps what the rules make of its policy; here they are applied anew each time.
    """
    assembly = assemble(parse(yaml.safe_dump(every_rule(BACKENDS, "http://127.0.0.1:1/v1")), {}), {}, TODAY)
    if not isinstance(assembly, Assembly):
        return {DECIDE_CPU: not_measured("; ".join(str(problem) for problem in assembly.problems))}
    signals = _signals(assembly)
    requests = list(_requests())
    say(f"  {BLOCKS} blocks of {ROUNDS_OF_REQUESTS} times {len(requests)} requests, {len(assembly.rules.rules)} rules")
    blocks = [_block_us(assembly, signals, requests) for _ in range(BLOCKS)]
    details = {
        "backends": BACKENDS,
        "rules_in_the_configuration": len(RULES),
        "hot_path": compiled.state(),
        "us": {"least": round(min(blocks), 1), "most": round(max(blocks), 1)},
    }
    n = BLOCKS * ROUNDS_OF_REQUESTS * len(requests)
    return {DECIDE_CPU: Measurement(round(statistics.median(blocks), 1), n, details)}


def _signals(assembly: Assembly) -> Signals:
    """Return what is known of the backends: all are up, and a budget with room covers every cloud."""
    board = Board()
    board.update(assembly.backends, assembly.rates)
    for backend in assembly.backends:
        board.health(backend.name, "up", "")
    signals = board.current(1.0)
    return Signals(
        signals.monotonic_s,
        {name: replace(one, headroom_nano=HEADROOM_NANO) for name, one in signals.backends.items()},
    )


def _requests() -> Sequence[RequestFacts]:
    callers = (Caller(key_id="k1", tier="free"), Caller(key_id="k2", tier="paid"))
    tasks = (("chat", 0), ("code", 6), ("extraction", 3), ("reasoning", 9))
    return [
        RequestFacts(
            request_id="r",
            endpoint="chat",
            model=model,
            stream=stream,
            prompt_bytes=size,
            max_tokens=256,
            choices=1,
            needs=frozenset(),
            privacy=PrivacyVerdict(may_leave=not private, reasons=("keyword",) if private else ()),
            caller=caller,
            traits=Traits(task=task, complexity=complexity, factors=(), language="en"),  # type: ignore[arg-type]
        )
        for caller, (task, complexity), model, stream, size, private in product(
            callers, tasks, ("auto", "demo", "auto:cheapest"), (False, True), (400, 40_000), (False, True)
        )
    ]


def _block_us(assembly: Assembly, signals: Signals, requests: Sequence[RequestFacts]) -> float:
    rules, policy, moment = assembly.rules, assembly.policy, Moment(wall_s=NOON, budget_left=0.5)
    begun_ns = time.thread_time_ns()
    for _ in range(ROUNDS_OF_REQUESTS):
        for facts in requests:
            decide(facts, signals, ruled(policy, rules, rules.matching(facts, moment)))
    return (time.thread_time_ns() - begun_ns) / 1000 / (ROUNDS_OF_REQUESTS * len(requests))


def many_backends(
    say: Callable[[str], None],
    systems: Sequence[System] = (SYSTEMS["spillway-rules-2"], SYSTEMS["spillway-rules-12"]),
    scenario: Scenario = NS32,
    rounds: int = BENCH_ROUNDS,
) -> Mapping[str, Measurement]:
    """Measure CPU per whole answer with the more backends, over that with the fewer, in the same run. `n` counts the
    requests of the former."""
    return {MANY_BACKENDS: _compared(say, systems, scenario, rounds)}


def many_engines(say: Callable[[str], None]) -> Mapping[str, Measurement]:
    """Measure CPU per whole answer with 64 discovered engines, over that with one. What it takes to watch them is in
    it."""
    systems = (SYSTEMS["spillway-engines-1"], SYSTEMS["spillway-engines-64"])
    return {MANY_ENGINES: _compared(say, systems, NS32, BENCH_ROUNDS)}


def _compared(say: Callable[[str], None], systems: Sequence[System], scenario: Scenario, rounds: int) -> Measurement:
    """Return the CPU per request of the second system, over that of the first one."""
    few, many = (system.name for system in systems)
    run = measure(BenchPlan(systems, (scenario,), rounds, quick=False), say).as_json()
    if run["skipped"]:
        return not_measured(str(run["skipped"]))
    value = ratio(run, many, few, scenario.name)
    samples = {name: run["systems"][name]["scenarios"][scenario.name] for name in (few, many)}
    details = {
        "cpu_us_per_request": {
            name: {"median": one["cpu_us_per_request"], "rounds": one["rounds"]} for name, one in samples.items()
        },
        "decisions": {name: one["decisions"] for name, one in samples.items()},
        "errors": {name: one["errors"] for name, one in samples.items()},
    }
    if value is None:
        return Measurement(None, 0, {"reason": "requests failed", **details})
    return Measurement(round(value, 4), samples[many]["requests"], details)
