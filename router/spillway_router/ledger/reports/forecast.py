"""Forecast the cost of the running month, from the balances and the rentals."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from spillway_router.core.money.forecast import MOST_WEEKS, CostSoFar, forecast, month_of
from spillway_router.ledger.calendar import start_of, utc_days
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.books import billed_nano
from spillway_router.ledger.rentals.fixed_cost import other_costs, rent
from spillway_router.ledger.reports.model import ForecastRow


def outlook(ledger: Ledger, now_ms: int, budget_nano: int | None) -> ForecastRow:
    """Return the forecast at `now_ms`, reading one balance per day of the month and of the weeks before, and no
    entries."""
    first, after = month_of(now_ms)
    today = datetime.fromtimestamp(now_ms / 1000, UTC).date()
    day = min(first, today - timedelta(weeks=MOST_WEEKS))
    cloud_nano = {}
    while day <= today:
        balance = ledger.balance("all", "day", start_of(day))
        if balance.spent_nano:  # what is held is a bound, and mostly given back
            cloud_nano[day] = balance.spent_nano
        day += timedelta(days=1)
    month_ms, after_ms = start_of(first), start_of(after)
    first_cost_ms = _first_hour_ms(ledger, min(cloud_nano)) if cloud_nano else now_ms
    so_far = rent(ledger, month_ms, after_ms, now_ms)
    running = [record for record, _ in so_far.rentals if record.stopped_ms is None]
    estimate = forecast(
        CostSoFar(
            now_ms=now_ms,
            cloud_by_day=cloud_nano,
            fixed_nano=sum(of_day.billed_nano for of_day in so_far.days.values()),
            fixed_to_come_nano=sum(billed_nano(record, max(now_ms, record.started_ms), after_ms) for record in running),
            first_cost_ms=first_cost_ms,
        )
    )
    other_nano = other_costs(ledger, utc_days(month_ms, after_ms), now_ms).nano + sum(
        billed_nano(cost, max(now_ms, cost.started_ms), after_ms)
        for cost in ledger.other_costs.all()
        if cost.stopped_ms is None and cost.started_ms < after_ms
    )
    return ForecastRow(
        month=estimate.month,
        method=estimate.method,
        days_of_history=estimate.days_of_history,
        minutes_of_history=estimate.minutes_of_history,
        fixed_so_far_nano=estimate.fixed_so_far_nano,
        cloud_so_far_nano=estimate.cloud_so_far_nano,
        fixed_nano=estimate.fixed_nano,
        cloud_nano=estimate.cloud_nano,
        total_nano=estimate.total_nano + other_nano,
        budget_nano=budget_nano,
        other_nano=other_nano,
    )


def _first_hour_ms(ledger: Ledger, day: date) -> int:
    """Return the start of the first hour with any cost on a day that has some."""
    hours = (start_of(day) + number * _HOUR_MS for number in range(24))
    for hour_ms in hours:
        balance = ledger.balance("all", "hour", hour_ms)
        if balance.spent_nano or balance.reserved_nano:
            return hour_ms
    return start_of(day)


_HOUR_MS = 3_600_000
