"""The comparison in dollars: what leaves by price costs less than what leaves by arrival, and never less than the
bound.
"""

from __future__ import annotations

import math

import pytest
from loadtests.simulator.clairvoyant import engine_speed, least_cost, least_work_s
from loadtests.simulator.dollars import bill_by_price, bill_today, clairvoyant_bill
from loadtests.simulator.gated import TokenPrice, simulate_gated
from loadtests.simulator.table import TraceLoad
from loadtests.simulator.trace import TraceRequest, load

from spillway_router.core.replay.engine import EngineModel
from spillway_router.core.routing.leaving import GateTerms

SHORT = TraceLoad("conv", 2.0, 3_000)
PRICE = TokenPrice()


def cost(request: TraceRequest) -> float:
    return PRICE.of(request.prompt_tokens, request.output_tokens) / 1e9


def test_what_leaves_by_price_costs_less_than_what_leaves_by_arrival_and_more_than_the_bound() -> None:
    by_price, today, least = (
        bill_by_price(SHORT, PRICE),
        bill_today("backlog-router", SHORT, PRICE),
        clairvoyant_bill(SHORT, PRICE),
    )
    assert by_price.usd < 0.96 * today.usd
    assert by_price.late_percent < 0.3
    assert by_price.late_departures == 0
    assert 0 < least.strict_usd <= least.usd <= by_price.usd


def test_requests_that_the_engine_has_room_for_stay() -> None:
    requests = [TraceRequest(number, float(number), 500, 50) for number in range(20)]
    result = simulate_gated(requests, GateTerms(1.0), PRICE)
    assert result.left == frozenset()
    assert len(result.ttft_s) == 20
    assert max(result.ttft_s) < 0.2


def test_the_bound_sends_away_the_cheapest_work_of_an_overload_and_as_little_of_it_as_must_leave() -> None:
    model = EngineModel()
    # The long prompts are cheaper per second of work. 100 s of work come at once and 24 s of slots are there for it.
    requests = [TraceRequest(n, 0.0, 4_000 if n % 2 else 400, 100) for n in range(700)]
    usd, stays = least_cost(requests, cost, model, slo_s=1.0)
    work = least_work_s(requests, model)
    done_s = sum(seconds * share for seconds, share in zip(work, stays, strict=True))
    assert done_s == pytest.approx(20.0, abs=0.01)
    short, long = [stays[n] for n in range(0, 700, 2)], [stays[n] for n in range(1, 700, 2)]
    assert min(short) == 1.0
    assert 0 < sum(long) < 350
    assert usd == pytest.approx(sum(cost(one) * (1 - share) for one, share in zip(requests, stays, strict=True)))


def test_an_engine_works_slower_than_the_bound_assumes_and_never_faster() -> None:
    speed = engine_speed(load("conv", 1.0, 1_000), EngineModel())
    assert 0.7 < speed < 1.0


def test_a_bound_without_pressure_is_nothing() -> None:
    assert least_cost(load("conv", 1.0, 50), cost, EngineModel(), 1.0) == (0.0, [1.0] * 50)
    assert math.isclose(engine_speed([], EngineModel()), 1.0)
