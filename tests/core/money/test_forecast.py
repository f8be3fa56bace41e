"""The month's cost by its end: linear at first, by weekdays once there are two weeks to go by."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from spillway_router.core.money.forecast import CostSoFar, forecast, month_of


def ms(day: date, hour: float = 0) -> int:
    return int((datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour)).timestamp() * 1000)


def cost_so_far(today: date, hour: float, cloud: dict[date, int], fixed: int = 0, to_come: int = 0) -> CostSoFar:
    return CostSoFar(now_ms=ms(today, hour), cloud_by_day=cloud, fixed_nano=fixed, fixed_to_come_nano=to_come)


def test_linear_by_elapsed_time() -> None:
    result = forecast(
        cost_so_far(
            today=date(2026, 11, 4), hour=0, cloud={date(2026, 11, n): 100 for n in (1, 2, 3)}, fixed=7, to_come=50
        )
    )
    assert (result.method, result.month, result.days_of_history) == ("linear", "2026-11", 3)
    assert (result.cloud_so_far_nano, result.cloud_nano) == (300, 3000)
    assert (result.fixed_so_far_nano, result.fixed_nano, result.total_nano) == (7, 57, 3057)


def test_who_began_in_the_middle_of_the_month_is_not_averaged_over_days_before() -> None:
    result = forecast(cost_so_far(date(2026, 11, 21), 0, {date(2026, 11, 20): 100}))
    assert result.cloud_nano == 1100, "11 days from the 20th to the 30th"


def test_a_first_day_counts_from_its_first_hour_and_is_a_guess() -> None:
    """1 dollar within half an hour, seven hours before midnight: not spread over a whole day that was not lived."""
    today = date(2026, 11, 29)
    costs = CostSoFar(
        now_ms=ms(today, 17.5),
        cloud_by_day={today: 10**9},
        fixed_nano=0,
        fixed_to_come_nano=0,
        first_cost_ms=ms(today, 17),
    )
    result = forecast(costs)
    assert (result.minutes_of_history, result.is_guess) == (30, True)
    assert result.cloud_nano == 2 * 31 * 10**9, "31 hours from 17:00 to the end of the 30th, at 2 dollars an hour"


def test_weekdays_with_two_weeks_of_history() -> None:
    # Mondays to Fridays cost 10, weekends 1; from 2026-11-02, a Monday, to 2026-11-16, a Monday, at noon.
    days = [date(2026, 11, 2) + timedelta(days=n) for n in range(14)]
    cloud = {day: 10 if day.weekday() < 5 else 1 for day in days} | {date(2026, 11, 16): 4}
    result = forecast(cost_so_far(date(2026, 11, 16), 12, cloud))
    assert (result.method, result.days_of_history) == ("weekdays", 14)
    # So far 2 x (50 + 2) + 4; half a Monday; the 17th to the 30th are ten working days and two weekends.
    assert (result.cloud_so_far_nano, result.cloud_nano) == (108, 108 + 5 + 10 * 10 + 4 * 1)


def test_last_month_counts_for_weekdays_but_not_for_the_sum() -> None:
    cloud = {date(2026, 10, 1) + timedelta(days=n): 10 for n in range(31)}
    result = forecast(cost_so_far(date(2026, 11, 1), 0, cloud))
    assert (result.method, result.cloud_so_far_nano, result.cloud_nano) == ("weekdays", 0, 300)


def test_nothing_yet_is_nothing() -> None:
    result = forecast(cost_so_far(date(2026, 11, 1), 0, {}))
    assert (result.cloud_nano, result.total_nano) == (0, 0)
    assert month_of(ms(date(2026, 12, 31), 23)) == (date(2026, 12, 1), date(2027, 1, 1))


@given(st.integers(0, 60), st.floats(0, 23.9), st.integers(0, 10**12))
def test_what_costs_the_same_each_day_goes_on_so(history: int, hour: float, daily: int) -> None:
    today = date(2026, 11, 18)
    cloud = {today - timedelta(days=n): daily for n in range(1, history + 1)}
    at = ms(today, hour)
    cloud[today] = daily * (at - ms(today)) // 86_400_000
    result = forecast(CostSoFar(now_ms=at, cloud_by_day=cloud, fixed_nano=0, fixed_to_come_nano=0))
    begun = max(date(2026, 11, 1), today - timedelta(days=history))
    whole = (date(2026, 12, 1) - begun).days * daily
    if history or hour > 1:
        assert abs(result.cloud_nano - whole) <= whole / 1000 + 13 * 3600_000
    assert result.cloud_nano >= result.cloud_so_far_nano
