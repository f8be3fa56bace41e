"""Measures systems in rounds: each round starts every system once, so that a slow minute of the machine affects all.

On a shared host the same work takes half as much CPU time again from one second to the next. Systems that are to be
compared closely therefore run at the same time and get their loads in turns (`BenchPlan.turns`), a second apart.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtests.bench import cpu, machine
from loadtests.bench.install import Unavailable
from loadtests.bench.processes import ROOT, BenchError, pinned
from loadtests.bench.scenarios import Scenario
from loadtests.bench.start import started
from loadtests.bench.systems import System

SETTLE_S = 2.0
LOAD_LIMIT_S = 180
WARM_UP = 200
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What to measure. `quick` makes the loads short: good for a first look, too short to quote.

    `leave_out` holds pairs of a system's and a scenario's name that are not run. With `turns` all systems of a round
    run at once, and each scenario is loaded so many times on each of them, in turns; 0: they run one after the other.
    """

    systems: Sequence[System]
    scenarios: Sequence[Scenario]
    rounds: int
    quick: bool
    leave_out: frozenset[tuple[str, str]] = frozenset()
    turns: int = 0


@dataclass(slots=True)
class ScenarioSamples:
    """One scenario on one system, with one entry per round."""

    cpu_us_per_request: list[float] = field(default_factory=list)
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    median_ms: list[float] = field(default_factory=list)
    others_busy_cores: list[float] = field(default_factory=list)
    decisions: dict[str, int] = field(default_factory=dict)

    def add(self, cpu_us: float, load: dict[str, Any], others: float) -> None:
        if load["completed"]:
            self.cpu_us_per_request.append(cpu_us / load["completed"])
        self.requests += load["completed"]
        self.peak = max(self.peak, load["peak"])
        self.median_ms.append(load["median_s"] * 1000)
        self.others_busy_cores.append(others)
        for mine, seen in ((self.errors, load["errors"]), (self.decisions, load["decisions"])):
            for name, count in seen.items():
                mine[name] = mine.get(name, 0) + count

    @property
    def held(self) -> bool:
        """Return whether fewer than 1% of the answers failed; otherwise CPU per completed request means nothing."""
        return sum(self.errors.values()) * 100 < self.requests

    def as_json(self) -> dict[str, Any]:
        figures = self.cpu_us_per_request if self.held else []
        return {
            "held": self.held,
            "cpu_us_per_request": round(statistics.median(figures), 1) if figures else None,
            "rounds": [round(value, 1) for value in self.cpu_us_per_request],
            "requests": self.requests,
            "errors": self.errors,
            "peak_concurrent": self.peak,
            "median_ms": round(statistics.median(self.median_ms), 2) if self.median_ms else None,
            "others_busy_cores": [round(value, 2) for value in self.others_busy_cores],
            "decisions": self.decisions,
        }


@dataclass(slots=True)
class SystemResult:
    """All measurements of one system."""

    version: str
    what: str
    idle_rss_mib: list[float] = field(default_factory=list)
    loaded_rss_mib: list[float] = field(default_factory=list)
    scenarios: dict[str, ScenarioSamples] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "what": self.what,
            "idle_rss_mib": round(statistics.median(self.idle_rss_mib), 1) if self.idle_rss_mib else None,
            "loaded_rss_mib": round(max(self.loaded_rss_mib), 1) if self.loaded_rss_mib else None,
            "scenarios": {name: samples.as_json() for name, samples in self.scenarios.items()},
        }


@dataclass(slots=True)
class BenchResult:
    """All measurements of a run; `skipped` says why a system is missing."""

    rounds: int
    quick: bool
    systems: dict[str, SystemResult] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine.describe(),
            "figure": "CPU microseconds (user + system) of the process tree per completed request, median of rounds",
            "rounds": self.rounds,
            "quick": self.quick,
            "systems": {name: result.as_json() for name, result in self.systems.items()},
            "skipped": self.skipped,
        }


def measure(plan: BenchPlan, say: Say) -> BenchResult:
    """Run the plan. A system that is unavailable or fails is skipped with its reason; the other systems continue."""
    result = BenchResult(plan.rounds, plan.quick)
    for system in plan.systems:
        say(f"{system.name}: preparing")
        try:
            result.systems[system.name] = SystemResult(system.prepare(), system.what)
        except Unavailable as reason:
            result.skipped[system.name] = str(reason)
            say(f"{system.name}: skipped, {reason}")
    for number in range(plan.rounds):
        if plan.turns:
            _start_together(number, plan, result, say)
            continue
        for system in plan.systems:
            if system.name in result.skipped:
                continue
            say(f"round {number + 1} of {plan.rounds}: {system.name}")
            try:
                _one_start(system, plan, result.systems[system.name], say)
            except (BenchError, Unavailable, ProcessLookupError) as error:
                result.skipped[system.name] = f"{type(error).__name__}: {error}"
                say(f"{system.name}: skipped, {error}")
                del result.systems[system.name]
    return result


def _start_together(number: int, plan: BenchPlan, result: BenchResult, say: Say) -> None:
    """Do a round with all systems at once; after a failure none of its systems is measured any more."""
    systems = [system for system in plan.systems if system.name not in result.skipped]
    if len(systems) < len(plan.systems):
        return
    say(f"round {number + 1} of {plan.rounds}: {', '.join(system.name for system in systems)}, in turns")
    try:
        with contextlib.ExitStack() as stack:
            running = [(system, stack.enter_context(started(system))) for system in systems]
            time.sleep(SETTLE_S)
            for scenario in plan.scenarios:
                for _ in range(plan.turns):
                    for system, one in running:
                        load = LoadProcess(one.port, one.key, one.cores.load, plan.quick)
                        _measured_load(system, one.pid, scenario, load, result.systems[system.name], say)
    except (BenchError, Unavailable, ProcessLookupError) as error:
        for system in systems:
            result.skipped[system.name] = f"{type(error).__name__}: {error}"
            result.systems.pop(system.name, None)
        say(f"skipped, {error}")


def _one_start(system: System, plan: BenchPlan, result: SystemResult, say: Say) -> None:
    with started(system) as running:
        time.sleep(SETTLE_S)
        result.idle_rss_mib.append(cpu.use(running.pid).rss_mib)
        load = LoadProcess(running.port, running.key, running.cores.load, plan.quick)
        for scenario in plan.scenarios:
            if (system.name, scenario.name) in plan.leave_out:
                continue
            _measured_load(system, running.pid, scenario, load, result, say)
        result.loaded_rss_mib.append(cpu.use(running.pid).rss_mib)


def _measured_load(
    system: System, pid: int, scenario: Scenario, load: LoadProcess, result: SystemResult, say: Say
) -> None:
    samples = result.scenarios.setdefault(scenario.name, ScenarioSamples())
    figure = _one_load(pid, scenario, load, samples)
    shown = f"{figure:,.0f} us/request" if figure else "nothing completed"
    errors = f", errors so far {samples.errors}" if samples.errors else ""
    say(f"  {system.name} {scenario.name}: {shown}{errors}")


@dataclass(frozen=True, slots=True)
class LoadProcess:
    """How the load generator is started."""

    port: int
    key: str
    core: int | None
    quick: bool

    def run(self, scenario: Scenario, count: int | None = None) -> dict[str, Any]:
        """Run one load in a process of its own; return the fields of its `LoadResult`. `count` overrides the scenario's
        count.
        """
        requests = (scenario.quick() if self.quick else scenario).count if count is None else count
        argv = [sys.executable, "-m", "loadtests.bench.load", "--port", str(self.port), "--scenario", scenario.name]
        argv += ["--key", self.key] if self.key else []
        argv += ["--quick"] if self.quick else []
        argv += ["--count", str(requests)]
        command = pinned(tuple(argv), self.core)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_LIMIT_S, cwd=ROOT, check=False)
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"the load {scenario.name} did not end within {LOAD_LIMIT_S} s") from error
        if done.returncode != 0:
            raise BenchError(f"the load generator failed: {done.stderr.strip()[-300:]}")
        loaded: dict[str, Any] = json.loads(done.stdout)
        return loaded


def _one_load(pid: int, scenario: Scenario, load: LoadProcess, samples: ScenarioSamples) -> float | None:
    load.run(scenario, count=min(WARM_UP, scenario.connections * 8) if not scenario.pace_ms[1] else 16)
    begun, busy, before = time.monotonic(), machine.busy_cpu_s(), cpu.use(pid)
    seen = load.run(scenario)
    after = cpu.use(pid)
    used_s = (after.cpu_us - before.cpu_us) / 1e6
    wall = time.monotonic() - begun
    # This includes stub and generator: more than about one core means that unrelated processes were busy, too.
    others = max(0.0, (machine.busy_cpu_s() - busy - used_s) / wall)
    samples.add(after.cpu_us - before.cpu_us, seen, others)
    return (after.cpu_us - before.cpu_us) / seen["completed"] if seen["completed"] else None
