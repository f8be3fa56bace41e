"""Pacing: the price that uses a budget up, and how it follows the plan."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.pacing import (
    UNIFORM,
    PacingPlan,
    Spend,
    SpendCurve,
    SpendOffer,
    curve_of,
    plan_for,
    price_now,
    repeated,
    threshold_price,
    worth,
)

OFFERS = [SpendOffer(0.1, 0.9, 1.0), SpendOffer(0.3, 0.4, 1.0), SpendOffer(0.6, 0.6, 1.0), SpendOffer(0.9, 0.1, 1.0)]
shares = st.floats(0, 1)
offers = st.lists(st.builds(SpendOffer, shares, shares, st.floats(0.001, 10)), max_size=40)


@pytest.mark.parametrize(("budget", "price"), [(0.0, 0.9), (1.0, 0.6), (2.5, 0.4), (3.0, 0.1), (100.0, 0.1)])
def test_the_threshold_is_the_first_offer_that_does_not_fit(budget: float, price: float) -> None:
    assert threshold_price(OFFERS, budget) == price


def test_without_costly_offers_there_is_no_price() -> None:
    assert threshold_price([], 1) == 0
    assert threshold_price([SpendOffer(0, 1, 0.0), SpendOffer(0, 0.0, 1.0)], 1) == 0


@given(offers, st.floats(0, 50))
def test_what_passes_the_threshold_fits_the_budget(day: list[SpendOffer], budget: float) -> None:
    price = threshold_price(day, budget)
    assert sum(o.cost_usd for o in day if worth(o.gain, o.cost_usd, price)) <= budget + 1e-6


def test_a_curve_is_the_share_spent_with_straight_lines_between() -> None:
    curve = curve_of([Spend(0.1, 1), Spend(0.6, 2), Spend(0.9, 1)], bins=4)
    assert curve.shares == (0, 0.25, 0.25, 0.75, 1.0)
    assert [curve.at(when) for when in (-1, 0, 0.125, 0.5, 0.625, 1, 2)] == [0, 0, 0.125, 0.25, 0.5, 1, 1]
    assert curve_of([]) == UNIFORM
    assert [UNIFORM.at(when) for when in (0, 0.3, 1)] == [0, 0.3, 1]


def test_a_month_repeats_the_day() -> None:
    month = repeated(SpendCurve((0.0, 0.8, 1.0)), 30)
    assert month.at(0) == 0
    assert month.at(1) == pytest.approx(1)
    assert month.at(10 / 30) == pytest.approx(10 / 30)
    assert month.at(10.5 / 30) == pytest.approx(10.8 / 30)


def test_the_price_follows_the_distance_from_the_plan() -> None:
    plan = PacingPlan(2.0)
    assert price_now(plan, 0.5, 0.5) == 2.0
    assert price_now(plan, 0.6, 0.5) == pytest.approx(2.0 * math.exp(1.5))
    assert price_now(plan, 0.4, 0.5) == pytest.approx(2.0 * math.exp(-1.5))
    assert price_now(PacingPlan(), 1.0, 0.0) == 0
    assert math.isfinite(price_now(plan, 1e9, 0.0))


@given(shares, shares, shares)
def test_more_spent_is_never_cheaper(a: float, b: float, when: float) -> None:
    low, high = sorted((a, b))
    assert price_now(PacingPlan(1.0), low, when) <= price_now(PacingPlan(1.0), high, when)


def test_other_spending_leaves_less_and_shapes_the_curve() -> None:
    alone = plan_for(OFFERS, (), 2.5)
    beside = plan_for(OFFERS, [Spend(0.95, 1.0)], 2.5)
    assert (alone.price, beside.price) == (0.4, 0.6)
    assert beside.curve.at(0.9) < alone.curve.at(0.9)
    assert plan_for((), (), 5) == PacingPlan(0.0, UNIFORM)
    # The others alone passed the budget: only the very best is worth it, until spending falls behind the plan.
    assert plan_for(OFFERS, [Spend(0.5, 9)], 2.5).price == 0.9


def test_worth() -> None:
    assert worth(0.5, 0.01, 49)
    assert not worth(0.5, 0.01, 50)
    assert worth(0.0, 0.0, 1e9)
    assert not worth(0.0, 0.01, 0.0)
