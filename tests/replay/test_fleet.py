"""The demand of a fleet from past requests, what other numbers of GPUs would have cost, and a repeatable decision."""

from __future__ import annotations

from decimal import Decimal

import pytest

from spillway_router.core.fleet.scaler import FleetTerms
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.tariff import Tariff
from spillway_router.core.replay.past import PastRequest
from spillway_router.replay.fleet import STEP_S, DemandHistory, OverflowPrice, decide_now, demand_history, plan_of

# 1 ms of GPU per prompt token and nothing for the answer's; a dollar per million tokens of the prompt.
WORK = WorkCoefficients(prefill_ps=10**9, decode_ps=0, kv_ps=0)
CLOUD = OverflowPrice("cloud", Tariff(Decimal(1), Decimal(0)))
START_S = 1_800_000_000 // 3600 * 3600
TERMS = FleetTerms(rent_nano_per_s=100_000.0, cold_start_s=600.0, most=3)


def history(requests: list[PastRequest], seconds: int = 3600) -> DemandHistory:
    return demand_history(requests, CLOUD, WORK, (START_S, START_S + seconds), TERMS.most)


def busy(seconds: int, every_s: float = 0.5) -> list[PastRequest]:
    """Requests of a second of work each, so that two GPUs would be busy."""
    return [PastRequest(number, START_S + number * every_s, 1_000, 10) for number in range(int(seconds / every_s))]


def test_each_gpu_takes_its_share_of_the_work_and_the_rest_is_overflow_at_the_cloud_price() -> None:
    seen = history(busy(STEP_S), STEP_S)
    assert seen.requests == 600
    # 600 requests of 1,000 tokens cost 0.6 dollars at the cloud; one GPU does half of the work, two do all of it.
    assert seen.demands[0].overflow_nano == pytest.approx((600_000_000.0, 300_000_000.0, 0.0, 0.0, 0.0))


def test_requests_outside_the_time_do_not_count() -> None:
    outside = [PastRequest(0, START_S - 1.0, 1_000, 10), PastRequest(1, START_S + 3600.0, 1_000, 10)]
    assert history(outside).requests == 0
    assert sum(demand.overflow(0) for demand in history(outside).demands) == 0.0


def test_a_plan_shows_every_number_of_gpus_the_scaler_and_the_best() -> None:
    plan = plan_of(history(busy(3600)).demands, TERMS)
    assert [round(cost.total_nano / 1e9, 3) for cost in plan.fixed] == [7.2, 3.96, 0.72, 1.08]
    assert plan.best_nano == pytest.approx(0.72e9 + 2 * TERMS.start_nano)
    assert plan.best_nano <= plan.scaled.total_nano < plan.fixed[0].total_nano


def test_the_same_ledger_gives_the_same_decision() -> None:
    seen = history(busy(3600))
    first, again = decide_now(seen, TERMS, 1), decide_now(seen, TERMS, 1)
    assert first == again
    assert first.target == 2
    assert [reason.token for reason in first.reasons] == ["stays-rented", "stays-rented", "stays-away"]


def test_a_fleet_that_has_been_idle_for_long_is_given_back() -> None:
    assert decide_now(history(busy(600)), TERMS, 2).target == 0
