"""The scaler never costs more than its guarantee, keeps its layers in order, obeys caps, and says why."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.fleet.demand import Demand, Slot, demand_of
from spillway_router.core.fleet.hindsight import best_cost, best_layer_cost, fixed_cost, layer_cost, scaled_cost
from spillway_router.core.fleet.outlook import WeeklyHistory
from spillway_router.core.fleet.scaler import (
    FleetState,
    FleetTerms,
    LayerOutlook,
    decide_fleet,
    guarantee,
)

STEP_S = 60.0
TERMS = FleetTerms(rent_nano_per_s=1.0, cold_start_s=600.0, most=3)
BUSY = Demand((900.0, 600.0, 400.0, 300.0))
QUIET = Demand((0.0, 0.0, 0.0, 0.0))
SAVINGS = st.lists(st.floats(0, 600), max_size=120)


@given(SAVINGS, st.sampled_from([1.0, 0.75, 0.6]))
def test_a_layer_never_costs_more_than_its_guarantee(savings: list[float], trust: float) -> None:
    terms = replace(TERMS, trust=trust)
    cost, starts = layer_cost(savings, STEP_S, terms)
    best = best_layer_cost(savings, STEP_S, terms.start_nano)
    overshoot = (starts + 1) * (max(savings, default=0.0) + STEP_S)
    assert cost <= guarantee(trust) * best + 2 * terms.start_nano + overshoot + 1e-6


@given(SAVINGS, st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=120, max_size=120))
def test_no_forecast_however_wrong_breaks_the_guarantee(savings: list[float], drawn: list[tuple[float, float]]) -> None:
    terms = replace(TERMS, trust=0.75, most=1)
    state, cost, starts, rented = FleetState.new(terms), 0.0, 0, False
    for saving, ends in zip(savings, drawn, strict=False):
        cost += STEP_S if rented else saving
        outlook = (LayerOutlook(min(ends), max(ends)),)
        state, decision = decide_fleet(state, Demand((saving, 0.0)), STEP_S, terms, int(rented), outlook)
        if decision.target and not rented:
            cost, starts = cost + terms.start_nano, starts + 1
        rented = bool(decision.target)
    best = best_layer_cost(savings, STEP_S, terms.start_nano)
    overshoot = (starts + 1) * (max(savings, default=0.0) + STEP_S)
    assert cost <= guarantee(0.75) * best + 2 * terms.start_nano + overshoot + 1e-6


def test_the_guarantee_is_three_without_trust_and_four_at_three_quarters() -> None:
    assert guarantee(1.0) == 3.0
    assert guarantee(0.75) == 4.0


def test_the_worst_case_comes_close_to_the_guarantee_so_that_it_is_no_smaller() -> None:
    # Savings that stop whenever the GPU has come, and come back whenever it has gone.
    terms = replace(TERMS, most=1)
    state, savings, rented = FleetState.new(terms), [], False
    for _ in range(10_000):
        savings.append(0.0 if rented else 30.0)
        state, decision = decide_fleet(state, Demand((savings[-1], 0.0)), 1.0, terms, int(rented))
        rented = bool(decision.target)
    cost, _ = layer_cost(savings, 1.0, terms)
    assert cost / best_layer_cost(savings, 1.0, terms.start_nano) > 2.4


# Whole numbers, whose sums and differences floats hold exactly: layers that save the same must not differ by rounding.
@given(st.lists(st.lists(st.integers(0, 300), min_size=3, max_size=3), max_size=60))
def test_a_further_gpu_is_never_rented_before_the_one_that_saves_more(steps: list[list[int]]) -> None:
    state, rented = FleetState.new(TERMS), 0
    for savings in steps:
        first, second, third = sorted(savings, reverse=True)
        demand = Demand((first + second + third, second + third, third, 0.0))
        state, decision = decide_fleet(state, demand, STEP_S, TERMS, rented)
        rented = decision.target
        assert list(state.wanted) == sorted(state.wanted, reverse=True)
        assert list(state.balances_nano) == sorted(state.balances_nano, reverse=True)


def test_a_gpu_comes_when_overflow_has_cost_its_start_and_goes_when_it_was_idle_for_as_much() -> None:
    state, targets = FleetState.new(TERMS), []
    for demand in [BUSY] * 10 + [QUIET] * 11:
        state, decision = decide_fleet(state, demand, STEP_S, TERMS, 0)
        targets.append(decision.target)
    # GPU 1 gains 240 a step and starts at 600; GPU 2 140; GPU 3 40, which is too little within ten steps.
    assert targets[:10] == [0, 0, 1, 1, 2, 2, 2, 2, 2, 2]
    assert targets[10:] == [2] * 9 + [0, 0]


def test_every_layer_has_a_reason_in_words() -> None:
    state, decision = decide_fleet(FleetState.new(TERMS), BUSY, 600.0, TERMS, 0)
    assert [(one.layer, one.token) for one in decision.reasons] == [
        (1, "stays-away"),
        (2, "stays-away"),
        (3, "stays-away"),
    ]
    tiny = Demand((9_000.0, 5_000.0, 2_000.0, 1_000.0))
    _, decision = decide_fleet(state, tiny, 600.0, replace(TERMS, most=3), 0)
    assert [one.token for one in decision.reasons] == ["pays", "pays", "stays-away"]
    assert decision.reasons[0].sentence().startswith("GPU 1: the overflow without it has cost")


def test_the_cap_holds_and_is_named() -> None:
    terms = replace(TERMS, most=1)
    state = FleetState.new(terms)
    for _ in range(20):
        state, decision = decide_fleet(state, BUSY, STEP_S, terms, 0)
    assert decision.target == 1
    assert (decision.reasons[-1].layer, decision.reasons[-1].token) == (2, "cap")


def test_the_kill_switch_leaves_the_fleet_as_it_is() -> None:
    terms, state = replace(TERMS, stopped=True), FleetState.new(TERMS)
    for demand in [BUSY] * 20 + [QUIET] * 20:
        state, decision = decide_fleet(state, demand, STEP_S, terms, 2)
        assert decision.target == 2
        assert [one.token for one in decision.reasons] == ["stopped"]


def test_min_keeps_gpus_that_do_nothing() -> None:
    terms = replace(TERMS, least=2)
    _, decision = decide_fleet(FleetState.new(terms), QUIET, STEP_S, terms, 2)
    assert decision.target == 2
    assert [one.token for one in decision.reasons] == ["least", "least", "stays-away"]


def test_a_rental_lasts_at_least_the_shortest_time_that_is_billed() -> None:
    terms = replace(TERMS, most=1, minimum_rental_s=3600.0)
    state, rented = FleetState.new(terms), []
    for demand in [BUSY] * 30 + [QUIET] * 70:
        state, decision = decide_fleet(state, demand, STEP_S, terms, 0)
        rented.append(decision.target)
    assert rented.count(1) * STEP_S >= 3600.0
    assert rented[-1] == 0


def test_a_spot_machine_that_is_taken_away_often_must_save_more_than_its_rent() -> None:
    safe, risky = replace(TERMS, most=1), replace(TERMS, most=1, losses_per_hour=3.0)
    assert risky.running_nano_per_s == pytest.approx(1.5)
    targets = []
    for terms in (safe, risky):
        state = FleetState.new(terms)
        for _ in range(60):
            state, decision = decide_fleet(state, Demand((80.0, 0.0)), STEP_S, terms, 0)
        targets.append(decision.target)
    assert targets == [1, 0]


def test_terms_that_cannot_be_are_refused() -> None:
    for change in ({"least": 4}, {"trust": 0.5}, {"cold_start_s": 0.0}):
        with pytest.raises(ValueError, match="must be"):
            replace(TERMS, **change)


def test_bursts_overflow_although_the_mean_fits() -> None:
    calm = demand_of([Slot(4.0, 400.0)] * 2, 5.0, 2)
    burst = demand_of([Slot(8.0, 800.0), Slot(0.0, 0.0)], 5.0, 2)
    assert calm.overflow_nano == (800.0, 0.0, 0.0)
    assert burst.overflow_nano == pytest.approx((800.0, 300.0, 0.0))
    assert burst.saving(1) == pytest.approx(500.0)
    assert burst.saving(3) == 0.0


def test_a_gpu_serves_only_after_its_cold_start_and_is_paid_from_its_start_on() -> None:
    terms = replace(TERMS, most=1, cold_start_s=120.0)
    cost = scaled_cost([Demand((300.0, 0.0))] * 6, STEP_S, terms)
    # It pays after the first step. Two steps of cold start overflow as well; the last three don't.
    assert cost.overflow_nano == 900.0
    assert cost.rent_nano == 300.0
    assert cost.targets == (0, 1, 1, 1, 1, 1)


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 300)), max_size=80))
def test_the_best_in_hindsight_is_never_dearer_than_the_scaler_or_a_fixed_fleet(
    drawn: list[tuple[float, float]],
) -> None:
    terms = replace(TERMS, most=2)
    demands = [Demand((first + 2 * second, second, 0.0)) for first, second in drawn]
    best = best_cost(demands, STEP_S, terms)
    assert best <= scaled_cost(demands, STEP_S, terms).total_nano + 1e-6
    assert best <= fixed_cost(demands, STEP_S, terms, 0).total_nano + 1e-6
    assert best <= fixed_cost(demands, STEP_S, terms, 2).total_nano + 2 * terms.start_nano + 1e-6


def test_the_outlook_is_the_range_of_the_same_hour_of_the_weeks_before() -> None:
    history = WeeklyHistory()
    for week, saved in enumerate((3600.0, 7200.0, 10_800.0)):
        history = history.with_hour(10 + 168 * week, [Demand((saved, 0.0))], 3600.0, 1)
    assert history.outlook(10, 1, 1) == (LayerOutlook(1.0, 3.0),)
    assert history.outlook(10, 2, 1) == ()  # nothing is known of the hour after it
    assert WeeklyHistory().with_hour(0, [BUSY], 3600.0, 3).outlook(0, 1, 3) == ()  # a single week


def test_a_forecast_starts_a_gpu_earlier() -> None:
    terms, state = replace(TERMS, trust=0.75, most=1), FleetState.new(TERMS)
    demand, seen = Demand((160.0, 0.0)), (LayerOutlook(2.0, 3.0),)
    tokens = []
    for outlook in ((), seen):
        state = FleetState.new(terms)
        for _ in range(5):
            state, decision = decide_fleet(state, demand, STEP_S, terms, 0, outlook)
        tokens.append(decision.reasons[0].token)
    assert tokens == ["stays-away", "will-pay"]
