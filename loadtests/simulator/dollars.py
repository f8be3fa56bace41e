"""The comparison in dollars: what leaves by price at the gate, by today's rule, and by a clairvoyant's choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.simulator.clairvoyant import engine_speed, least_cost
from loadtests.simulator.gated import TokenPrice, simulate_gated
from loadtests.simulator.policies import Policy
from loadtests.simulator.simulate import simulate
from loadtests.simulator.table import CONTENDERS, TTFT_SLO_S, TraceLoad
from loadtests.simulator.trace import TraceRequest, load
from spillway_router.core.replay.engine import EngineModel, Iteration
from spillway_router.core.routing.backlog import Slo
from spillway_router.core.routing.leaving import GateTerms


@dataclass(frozen=True, slots=True)
class Bill:
    """What one rule sent to the cloud: its price in dollars, the share of requests in percent, and the percent of the
    local requests past the promise. `late_departures` left too late for the cloud to keep it."""

    usd: float
    cloud_percent: float
    late_percent: float
    late_departures: int = 0


@dataclass(frozen=True, slots=True)
class ClairvoyantBill:
    """The least dollars: of the strict bound, and at the speed that this engine reaches (`engine_speed`)."""

    strict_usd: float
    usd: float
    speed: float


class _Recording:
    """A rule, and the numbers of the requests that it kept."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.poll_s = policy.poll_s
        self.kept: set[int] = set()
        self.poll, self.first_token, self.finished = policy.poll, policy.first_token, policy.finished

    def keep(self, request: TraceRequest, now: float) -> bool:
        keeps = self._policy.keep(request, now)
        if keeps:
            self.kept.add(request.number)
        return keeps

    def iteration(self, iteration: Iteration, now: float) -> None:
        self._policy.iteration(iteration, now)


def bill_today(name: str, cell: TraceLoad, price: TokenPrice) -> Bill:
    """Return the bill of a rule of `table.CONTENDERS`."""
    requests, engine, contender = load(cell.trace, cell.speed, cell.limit), EngineModel(), CONTENDERS[name]
    rule = _Recording(contender.make(Slo(TTFT_SLO_S, math.inf), engine))
    result = simulate(requests, rule, engine, contender.timing)
    left = frozenset(one.number for one in requests) - rule.kept
    return _bill(requests, left, result.ttft_s, price)


def bill_by_price(cell: TraceLoad, price: TokenPrice, terms: GateTerms | None = None) -> Bill:
    """Return the bill of `core.routing.leaving`."""
    requests = load(cell.trace, cell.speed, cell.limit)
    result = simulate_gated(requests, terms or GateTerms(TTFT_SLO_S), price)
    return _bill(requests, result.left, result.ttft_s, price, result.left_late)


def clairvoyant_bill(cell: TraceLoad, price: TokenPrice) -> ClairvoyantBill:
    """Return the least dollars of any rule on a load."""
    requests, engine = load(cell.trace, cell.speed, cell.limit), EngineModel()

    def usd(request: TraceRequest) -> float:
        return price.of(request.prompt_tokens, request.output_tokens) / 1e9

    strict_usd, _ = least_cost(requests, usd, engine, TTFT_SLO_S)
    speed = engine_speed(requests, engine)
    _, stays = least_cost(requests, usd, engine, TTFT_SLO_S, speed)
    # What stays is another mixture than the whole trace; the faster of the two speeds gives the lower bound.
    kept = [one for one, share in zip(requests, stays, strict=True) if share > 0.5]
    speed = min(1.0, max(speed, engine_speed(kept, engine)))
    least_usd, _ = least_cost(requests, usd, engine, TTFT_SLO_S, speed)
    return ClairvoyantBill(strict_usd, least_usd, speed)


def _bill(
    requests: Sequence[TraceRequest],
    left: frozenset[int],
    ttft_s: Sequence[float],
    price: TokenPrice,
    late_departures: int = 0,
) -> Bill:
    usd = sum(price.of(one.prompt_tokens, one.output_tokens) for one in requests if one.number in left) / 1e9
    late = sum(seconds > TTFT_SLO_S for seconds in ttft_s)
    return Bill(usd, 100 * len(left) / len(requests), 100 * late / max(1, len(ttft_s)), late_departures)
