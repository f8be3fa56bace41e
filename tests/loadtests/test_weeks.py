"""Weeks of demand: bursts are kept, and the scaler is near the clairvoyant on them."""

from __future__ import annotations

import pytest
from evidence.measures_fleet import TERMS, outlooks_of
from loadtests.fleet.queue import drawn_hours, queued
from loadtests.fleet.weeks import STEP_S, weeks_of

from spillway_router.core.fleet.hindsight import best_cost, fixed_cost, scaled_cost


def test_a_week_costs_little_more_than_at_best_and_much_less_than_any_fixed_fleet() -> None:
    week = weeks_of("conv", weeks=1, most=TERMS.most)
    cost = scaled_cost(week.demands, STEP_S, TERMS).total_nano
    assert best_cost(week.demands, STEP_S, TERMS) <= cost <= 1.15 * best_cost(week.demands, STEP_S, TERMS)
    assert all(cost < 0.9 * fixed_cost(week.demands, STEP_S, TERMS, gpus).total_nano for gpus in range(TERMS.most + 1))


def test_bursts_are_kept_so_that_a_fleet_with_room_on_average_still_overflows() -> None:
    week = weeks_of("code", weeks=1, most=2, scale=0.5)
    assert week.mean_load < 0.5
    assert sum(demand.overflow(1) for demand in week.demands) > 0.05 * sum(
        demand.overflow(0) for demand in week.demands
    )


def test_the_forecast_of_a_step_knows_nothing_later() -> None:
    week = weeks_of("conv", weeks=3, most=2)
    outlook = outlooks_of(week.demands, 2)
    assert outlook(0) == ()
    last = len(week.demands) - 1
    until = outlooks_of(week.demands[: last + 1], 2)(last)
    assert until == outlook(last)
    assert len(until) == 2
    assert until[0].low_nano_per_s == pytest.approx(outlooks_of(week.demands[:last], 2)(last - 1)[0].low_nano_per_s)


def test_hours_with_their_queues_are_in_time_because_what_has_no_room_leaves() -> None:
    busy = 31  # Tuesday, 7 o'clock
    steps = int(24 * 7 * 3600 / STEP_S)
    one, four = queued("conv", 1, [1] * steps, [busy]), queued("conv", 1, [4] * steps, [busy])
    assert one.requests == four.requests > 10_000
    assert one.left > 2 * four.left
    assert max(one.late_percent, four.late_percent) < 1
    assert queued("conv", 1, [0] * steps, [busy]).left == one.requests


def test_a_promise_that_no_queue_keeps_is_counted_as_late() -> None:
    steps = int(24 * 7 * 3600 / STEP_S)
    assert queued("conv", 1, [1] * steps, [31], margin=30.0).late_percent > 1


def test_hours_are_drawn_from_every_part_of_the_day() -> None:
    hours = drawn_hours(4, 1)
    assert len(hours) == 28
    assert {(hour // 24 % 7, hour % 24 // 6) for hour in hours} == {
        (day, part) for day in range(7) for part in range(4)
    }
