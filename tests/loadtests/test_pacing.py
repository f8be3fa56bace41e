"""Pacing against the offline optimum, in a short run: it holds, and a rule that ignores the spending does not."""

from __future__ import annotations

import pytest
from evidence.measures_pacing import IDS, pacing
from evidence.promises import load_promises
from loadtests.pacing.__main__ import main
from loadtests.pacing.compare import compare
from loadtests.pacing.day import Chance, draw
from loadtests.pacing.rules import RULES, Setting, optimum, plan_from

from spillway_router.core.money.pacing import PacingPlan

PROMISE = load_promises()[IDS[0]]


def _measured(rule: str) -> bool:
    measurement = pacing(lambda _: None, rule=rule, beside=(), days=2, offers=4_000)[IDS[0]]
    return PROMISE.holds(measurement.value, measurement.n)


def test_plan_tracking_keeps_the_promise() -> None:
    assert _measured("plan-tracking")


@pytest.mark.parametrize("fault", ["blind", "first-come", "dual-descent"])
def test_a_price_that_ignores_spending_or_the_curve_breaks_it(fault: str) -> None:
    assert not _measured(fault)


def test_days_repeat_with_their_seed_and_follow_their_load() -> None:
    day = draw(7, 2_000)
    assert day == draw(7, 2_000) != draw(8, 2_000)
    assert [c.at for c in day] == sorted(c.at for c in day)
    assert all(0 <= c.at <= 1 and 0 < c.gain < 1 and c.actual_usd == c.expected_usd > 0 for c in day)
    assert 1.3 < len(draw(7, 3_000)) / len(day) < 1.7
    noisy = draw(7, 2_000, cost_noise=0.3)
    ratio = sum(c.actual_usd for c in noisy) / sum(c.expected_usd for c in noisy)
    assert 0.9 < ratio < 1.1
    assert any(c.actual_usd != c.expected_usd for c in noisy)


def test_the_optimum_takes_the_best_offers_and_a_part_of_the_next() -> None:
    day = [
        Chance(at=0.1, gain=0.2, expected_usd=1.0, actual_usd=1.0),
        Chance(at=0.2, gain=0.9, expected_usd=1.0, actual_usd=1.0),
        Chance(at=0.3, gain=0.8, expected_usd=2.0, actual_usd=2.0),
    ]
    setting = Setting(PacingPlan(), 3, 2.0)
    assert optimum(setting, day) == pytest.approx(0.9 + 0.8 / 2)
    assert RULES["first-come"](setting, day) == pytest.approx(0.2 + 0.9)


@pytest.mark.parametrize("load", [0.7, 1.5])
def test_no_rule_beats_the_optimum_or_the_budget(load: float) -> None:
    outcomes = compare(list(RULES), days=1, mean_count=1_000, loads=[load], cost_noise=0.3)
    assert {o.rule for o in outcomes} == set(RULES)
    assert all(0 < o.worst <= o.mean <= 1 for o in outcomes)


def test_yesterdays_price_would_have_used_up_yesterdays_budget() -> None:
    day = draw(1, 2_000)
    budget = 0.25 * sum(c.expected_usd for c in day)
    plan = plan_from(day, budget)
    spent = sum(c.expected_usd for c in day if c.gain > plan.price * c.expected_usd)
    assert budget * 0.98 < spent <= budget
    assert plan.curve.shares[0] == 0
    assert plan.curve.shares[-1] == pytest.approx(1)


def test_the_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--days", "1", "--offers", "200"]) == 0
    assert "plan-tracking" in capsys.readouterr().out
