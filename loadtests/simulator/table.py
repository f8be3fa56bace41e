# ruff: noqa: ARG005  (not every rule needs the SLO or the engine)
"""The comparison: rules x traces -> the share sent to the cloud and the shares of local requests past the promise.

Rules of the reference table run with its timing (`Timing.ITERATION`) and are shown beside its figures. The rows named
`backlog-router…` are the same rule as a live router runs it: asked at arrival, with R_p from its own TTFTs and output
lengths from a running mean. m = .95 was picked among .85, .9, .95 and 1.0 on these very traces, so that row shows what
the rule can do, not what to expect elsewhere. The reference has no promise per token; with one, `backlog-router` keeps
it too, and `backlog-router-ttft` shows what ignoring it costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from loadtests.simulator.policies import (
    AimdPolicy,
    AlwaysLocal,
    BacklogPolicy,
    BacklogRule,
    GaugePolicy,
    InFlightPolicy,
    Policy,
    UtilisationPolicy,
)
from loadtests.simulator.simulate import Timing, simulate
from loadtests.simulator.trace import load
from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.routing.backlog import Slo

TTFT_SLO_S = 1.0


@dataclass(frozen=True, slots=True)
class TraceLoad:
    """A trace at a speed; `limit` restricts it to its first requests."""

    trace: str
    speed: float = 1.0
    limit: int | None = None

    def __str__(self) -> str:
        return f"{self.trace} x{self.speed:g}"


@dataclass(frozen=True, slots=True)
class Contender:
    """A rule with its timing; `make` takes the promise and the engine and returns a new policy."""

    label: str
    timing: Timing
    make: Callable[[Slo, EngineModel], Policy]


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """One cell of the table, in percent."""

    cloud_percent: float
    miss_percent: float


@dataclass(frozen=True, slots=True)
class Cell:
    """The outcome of one rule on one load, and the reference table's figure for it (None: it is not in that table).

    `cloud_percent` is a share of all requests; `miss_percent` (first token), `pace_miss_percent` (time per token) and
    `p99_ttft_s` (seconds) concern the local ones.
    """

    policy: str
    trace: str
    speed: float
    timing: str
    requests: int
    local: int
    cloud_percent: float
    miss_percent: float
    pace_miss_percent: float
    p99_ttft_s: float
    reference: RuleFigures | None


def _backlog(rule: BacklogRule) -> Callable[[Slo, EngineModel], Policy]:
    return lambda slo, engine: BacklogPolicy(slo, engine, rule)


_AS_ROUTER = BacklogRule(from_iterations=False, true_output=False)

CONTENDERS = MappingProxyType(
    {
        "always-local": Contender("always local", Timing.ITERATION, lambda slo, engine: AlwaysLocal()),
        "nvml-90": Contender("NVML > 90%, 1 s poll", Timing.ITERATION, lambda slo, engine: UtilisationPolicy()),
        "gauges-50ms": Contender(
            "queue >= 5 or KV >= .8, 50 ms poll", Timing.ITERATION, lambda slo, engine: GaugePolicy(0.05)
        ),
        "gauges-5s": Contender("same, 5 s poll", Timing.ITERATION, lambda slo, engine: GaugePolicy(5.0)),
        "cap-32": Contender("in-flight cap 32", Timing.ITERATION, lambda slo, engine: InFlightPolicy()),
        "aimd": Contender("AIMD on TTFT", Timing.ITERATION, lambda slo, engine: AimdPolicy(slo.ttft_s)),
        "backlog": Contender("backlog, m = .85", Timing.ITERATION, _backlog(BacklogRule())),
        "backlog-at-arrival": Contender("backlog, m = .85, asked at arrival", Timing.ARRIVAL, _backlog(BacklogRule())),
        "backlog-router": Contender("as the router, m = .85", Timing.ARRIVAL, _backlog(_AS_ROUTER)),
        "backlog-router-ttft": Contender(
            "as the router, first token only",
            Timing.ARRIVAL,
            _backlog(BacklogRule(from_iterations=False, true_output=False, sees_pace=False)),
        ),
        "backlog-router-m95": Contender(
            "as the router, m = .95",
            Timing.ARRIVAL,
            _backlog(BacklogRule(margin=0.95, from_iterations=False, true_output=False)),
        ),
        "backlog-router-learned": Contender(
            "as the router, m learned",
            Timing.ARRIVAL,
            _backlog(BacklogRule(from_iterations=False, true_output=False, learn_margin=True)),
        ),
    }
)

REFERENCE_LOADS = (TraceLoad("conv"), TraceLoad("conv", 2.0), TraceLoad("code"))

REFERENCE = MappingProxyType(
    {
        "always-local": (RuleFigures(0, 16.0), RuleFigures(0, 98), RuleFigures(0, 84)),
        "nvml-90": (RuleFigures(77.8, 0.6), RuleFigures(83.7, 6.4), RuleFigures(62.9, 34)),
        "gauges-50ms": (RuleFigures(1.9, 2.0), RuleFigures(29.6, 5.7), RuleFigures(38.3, 32)),
        "gauges-5s": (RuleFigures(4.9, 3.1), RuleFigures(35.2, 25), RuleFigures(40.8, 56)),
        "cap-32": (RuleFigures(12.7, 0.4), RuleFigures(50.7, 0.2), RuleFigures(32.3, 60)),
        "aimd": (RuleFigures(4.7, 1.3), RuleFigures(36.7, 1.0), RuleFigures(41.3, 22)),
        "backlog": (RuleFigures(1.4, 0.04), RuleFigures(21.2, 0.2), RuleFigures(27.1, 2.1)),
    }
)
"""An independent simulation of the same rules and engine, in the order of `REFERENCE_LOADS`."""


def overflow_table(
    policies: Sequence[str], cells: Sequence[TraceLoad], slo_s: float = TTFT_SLO_S, tpot_slo_s: float = math.inf
) -> list[Cell]:
    """Run every named policy on every load: policies in the outer order, loads in the inner.

    `slo_s` and `tpot_slo_s` are seconds to the first token and per token after it.

    Raises:
        ValueError: a policy is unknown.
    """
    unknown = [name for name in policies if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"no policy named {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    slo = Slo(slo_s, tpot_slo_s)
    return [_cell(name, CONTENDERS[name], cell, slo) for name in policies for cell in cells]


def _cell(name: str, contender: Contender, cell: TraceLoad, slo: Slo) -> Cell:
    engine = EngineModel()
    requests = load(cell.trace, cell.speed, cell.limit)
    result = simulate(requests, contender.make(slo, engine), engine, contender.timing)
    local = len(result.ttft_s)
    published = REFERENCE.get(name) if slo == Slo(TTFT_SLO_S, math.inf) and cell in REFERENCE_LOADS else None
    return Cell(
        policy=name,
        trace=cell.trace,
        speed=cell.speed,
        timing=contender.timing.value,
        requests=result.requests,
        local=local,
        cloud_percent=100 * result.cloud / result.requests if requests else 0.0,
        miss_percent=100 * result.missed(slo.ttft_s) / local if local else 0.0,
        pace_miss_percent=100 * result.missed_pace(slo.tpot_s) / local if local else 0.0,
        p99_ttft_s=sorted(result.ttft_s)[int(0.99 * (local - 1))] if local else 0.0,
        reference=published[REFERENCE_LOADS.index(cell)] if published else None,
    )
