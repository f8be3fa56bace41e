"""What a fleet cost, what a fixed number of GPUs would have cost, and what it cost at best, known afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spillway_router.core.fleet.demand import Demand
from spillway_router.core.fleet.scaler import FleetState, FleetTerms, LayerOutlook, decide_fleet

Outlooks = Callable[[int], Sequence[LayerOutlook]]
"""From the number of a step to the forecast that was known then."""


@dataclass(frozen=True, slots=True)
class FleetCost:
    """The cost of a fleet over some time, in nano-dollars, and how many rentals it began. `targets` is its size by
    step, `serving` how many of its GPUs had started by then."""

    rent_nano: float
    overflow_nano: float
    starts: int
    targets: tuple[int, ...] = ()
    serving: tuple[int, ...] = ()

    @property
    def total_nano(self) -> float:
        """Rent and overflow."""
        return self.rent_nano + self.overflow_nano


def fixed_cost(demands: Sequence[Demand], step_s: float, terms: FleetTerms, gpus: int) -> FleetCost:
    """Return the cost of so many GPUs all the time."""
    rent_nano = terms.rent_nano_per_s * step_s * len(demands) * gpus
    return FleetCost(rent_nano, sum(demand.overflow(gpus) for demand in demands), gpus)


def scaled_cost(
    demands: Sequence[Demand], step_s: float, terms: FleetTerms, outlooks: Outlooks | None = None
) -> FleetCost:
    """Return the cost of the scaler: it decides at the end of each step for the next, and a GPU serves and absorbs
    overflow only after its cold start, rounded up to whole steps. Its rent runs from the start on."""
    state, cold_steps = FleetState.new(terms), -int(-terms.cold_start_s // step_s)
    ready_at = [0] * terms.least  # of each GPU that is rented: the step from which on it serves
    rent_nano = overflow_nano = 0.0
    starts, targets, ready = terms.least, [], []
    for step, demand in enumerate(demands):
        serving = sum(at <= step for at in ready_at)
        rent_nano += terms.rent_nano_per_s * step_s * len(ready_at)
        overflow_nano += demand.overflow(serving)
        targets.append(len(ready_at))
        ready.append(serving)
        outlook = outlooks(step) if outlooks is not None else ()
        state, decision = decide_fleet(state, demand, step_s, terms, len(ready_at), outlook)
        while len(ready_at) < decision.target:
            ready_at.append(step + 1 + cold_steps)
            starts += 1
        ready_at.sort()
        del ready_at[decision.target :]  # the newest go first
    return FleetCost(
        rent_nano=rent_nano,
        overflow_nano=overflow_nano,
        starts=starts,
        targets=tuple(targets),
        serving=tuple(ready),
    )


def best_cost(demands: Sequence[Demand], step_s: float, terms: FleetTerms) -> float:
    """Return the least cost in nano-dollars of any fleet of up to `most` GPUs, known in advance: its GPUs have started
    when they are needed, and each start costs the rent of its cold start. Layer by layer, by dynamic programming."""
    total = sum(demand.overflow(terms.most) for demand in demands)
    rent_nano = terms.rent_nano_per_s * step_s
    start_nano = terms.rent_nano_per_s * terms.cold_start_s
    for layer in range(1, terms.most + 1):
        if layer <= terms.least:
            total += rent_nano * len(demands)
            continue
        total += best_layer_cost([demand.saving(layer) for demand in demands], rent_nano, start_nano)
    return total


def best_layer_cost(savings_nano: Sequence[float], rent_nano: float, start_nano: float) -> float:
    """Return the least cost of one layer: each step pays its rent, or the saving that it forgoes; starts cost extra."""
    away, rented = 0.0, start_nano
    for saving in savings_nano:
        away, rented = away + saving, rented + rent_nano
        away = min(away, rented)
        rented = min(rented, away + start_nano)
    return away


def layer_cost(savings_nano: Sequence[float], rent_nano: float, terms: FleetTerms) -> tuple[float, int]:
    """Return the cost of the scaler's rule on one layer whose starts take no time but cost `start_nano`, and the number
    of starts: what the guarantee is about."""
    alone = replace(terms, least=0, most=1, rent_nano_per_s=terms.rent_nano_per_s)
    state, cost, starts, rented = FleetState.new(alone), 0.0, 0, False
    step_s = rent_nano / alone.running_nano_per_s
    for saving in savings_nano:
        cost += rent_nano if rented else saving
        state, decision = decide_fleet(state, Demand((saving, 0.0)), step_s, alone, int(rented))
        if decision.target and not rented:
            cost, starts = cost + alone.start_nano, starts + 1
        rented = bool(decision.target)
    return cost, starts
