"""What a fleet of each size would have left to the cloud, from the requests of a ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spillway_router.core.fleet.demand import Demand, Slot, demand_of
from spillway_router.core.fleet.hindsight import FleetCost, best_cost, fixed_cost, scaled_cost
from spillway_router.core.fleet.outlook import WeeklyHistory
from spillway_router.core.fleet.scaler import FleetState, FleetTerms, LayerOutlook, ScalingDecision, decide_fleet
from spillway_router.core.money.attribution import MICRO, WorkCoefficients, work_share_us
from spillway_router.core.money.tariff import Tariff, Usage, price
from spillway_router.core.replay.past import PastRequest

SLOT_S = 5
STEP_S = 300
HOUR_S = 3600
MONDAY_S = 4 * 86_400
"""The first Monday of the epoch."""


@dataclass(frozen=True, slots=True)
class OverflowPrice:
    """Where overflow goes: the backend and its price."""

    backend: str
    tariff: Tariff


@dataclass(frozen=True, slots=True)
class DemandHistory:
    """The demand in steps of `STEP_S` from `start_s` (epoch seconds, on a full hour), of so many requests."""

    start_s: int
    demands: tuple[Demand, ...]
    requests: int

    def between(self, start_s: int, end_s: int) -> tuple[Demand, ...]:
        """Return the steps of some time."""
        first, after = ((one - self.start_s) // STEP_S for one in (start_s, end_s))
        return self.demands[max(0, first) : max(0, after)]


def demand_history(
    requests: Iterable[PastRequest],
    overflow: OverflowPrice,
    coefficients: WorkCoefficients,
    span_s: tuple[int, int],
    most: int,
) -> DemandHistory:
    """Return the demand of the full steps in [start, end), epoch seconds, with 0 to `most` GPUs and one more.

    Each request is the work that its tokens are on this GPU, wherever it was answered, in the slot of its arrival. A
    private one counts at the price of the others: it never leaves, but what it displaces does.
    """
    start_s, steps = span_s[0] // HOUR_S * HOUR_S, max(0, span_s[1] - span_s[0] // HOUR_S * HOUR_S) // STEP_S
    work_us: dict[int, int] = defaultdict(int)
    cloud_nano: dict[int, int] = defaultdict(int)
    number = 0
    for one in requests:
        slot = int(one.arrival_s - start_s) // SLOT_S
        if not 0 <= slot < steps * STEP_S // SLOT_S:
            continue
        number += 1
        prompt, output = one.prompt_tokens, one.output_tokens
        work_us[slot] += work_share_us(prompt, prompt, output, coefficients)
        cloud_nano[slot] += price(Usage(prompt, output), overflow.tariff)
    by_step: dict[int, list[Slot]] = defaultdict(list)
    for slot, work in work_us.items():
        by_step[slot * SLOT_S // STEP_S].append(Slot(work / MICRO, float(cloud_nano[slot])))
    demands = tuple(demand_of(by_step.get(step, ()), float(SLOT_S), most + 1) for step in range(steps))
    return DemandHistory(start_s, demands, number)


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """What some time would have cost: by fixed number of GPUs from 0 on, by the scaler, and at best in hindsight."""

    fixed: tuple[FleetCost, ...]
    scaled: FleetCost
    best_nano: float


def plan_of(demands: Sequence[Demand], terms: FleetTerms) -> FleetPlan:
    """Return what the fleets would have cost."""
    step_s = float(STEP_S)
    return FleetPlan(
        fixed=tuple(fixed_cost(demands, step_s, terms, gpus) for gpus in range(terms.most + 1)),
        scaled=scaled_cost(demands, step_s, terms),
        best_nano=best_cost(demands, step_s, terms),
    )


def decide_now(history: DemandHistory, terms: FleetTerms, rented: int) -> ScalingDecision:
    """Return the scaler's decision at the end of a history, which it goes through from the start.

    It needs no memory of its own: the same ledger gives the same decision.
    """
    state, weekly = FleetState.new(terms), WeeklyHistory()
    decision = ScalingDecision(terms.least, ())
    per_hour = HOUR_S // STEP_S
    for place, demand in enumerate(history.demands):
        hour = (history.start_s - MONDAY_S) // HOUR_S + place // per_hour
        if place and place % per_hour == 0:
            weekly = weekly.with_hour(hour - 1, history.demands[place - per_hour : place], float(HOUR_S), terms.most)
        outlook: tuple[LayerOutlook, ...] = weekly.outlook(hour, 1, terms.most) if terms.trust < 1 else ()
        state, decision = decide_fleet(state, demand, float(STEP_S), terms, rented, outlook)
    return decision
