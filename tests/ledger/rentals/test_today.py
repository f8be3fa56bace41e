"""The fixed cost of the running day, for metrics: the same figures as the report's, without reading rows."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import OtherCost
from spillway_router.ledger.rentals.fixed_cost import fixed_today
from spillway_router.ledger.rentals.keeper import Books, RentalKeeper, RentalTerms
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import one_day
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.metrics.ledger import FixedCostMetrics

TODAY = date(2026, 11, 29)
START = start_of(TODAY)
HOUR = 3_600_000


def test_today_is_what_the_report_says(tmp_path: Path) -> None:
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    keeper = RentalKeeper(ledger, RentalTerms("t4", 2, 1_390_000_007, "reserved", machine="m"), lambda: "rent_1")
    keeper.begin(START - 5 * HOUR)
    ledger.other_costs.add(
        OtherCost(
            id="cost-disk-1",
            name="disk",
            price_nano_per_month=30 * 10**9,
            started_ms=START - 40 * HOUR,
            stopped_ms=None,
        )
    )
    used = Entry(
        kind="charged",
        request_id="r1",
        attempt_no=1,
        ts=START + HOUR,
        backend="local",
        provider="vllm",
        model="m",
        local=True,
        decision="local",
        status="ok",
        gpu_us=10**9,
    )
    ledger.append((used,))
    now = START + 9 * HOUR + 1234
    keeper.tick(now)
    Books(ledger).settle(now)
    today = fixed_today(ledger, now)
    report = build_report(ledger, one_day(TODAY), ReportTerms(GpuRental(Decimal(1)), WorkCoefficients(), {}), now)
    assert (today.billed_nano, today.used_nano, today.idle_nano, today.other_nano) == (
        report.fixed.billed_nano,
        report.fixed.used_nano,
        report.fixed.idle_nano,
        report.other.billed_nano,
    )
    assert today.used_nano > 0
    assert today.used_nano + today.idle_nano == today.billed_nano
    registry = CollectorRegistry()
    registry.register(FixedCostMetrics(lambda: today))
    page = generate_latest(registry).decode()
    assert f'spillway_fixed_cost_today_usd{{part="idle"}} {today.idle_nano / 10**9}' in page
    assert "spillway_unpriced_gpu_hours_today 0.0" in page
    ledger.close()


@pytest.mark.parametrize("is_free", [False, True])
def test_a_price_that_nobody_gave_is_no_cost_of_0(is_free: bool, tmp_path: Path) -> None:
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    keeper = RentalKeeper(ledger, RentalTerms("", 1, 0, "reserved", machine="m"), lambda: "rent_1")
    keeper.begin(START)
    keeper.tick(START + HOUR)
    today = fixed_today(ledger, START + HOUR, is_free=is_free)
    registry = CollectorRegistry()
    registry.register(FixedCostMetrics(lambda: today))
    page = generate_latest(registry).decode()
    assert ('part="billed"' in page) is is_free
    assert 'part="other"' in page
    assert f"spillway_unpriced_gpu_hours_today {0.0 if is_free else 1.0}" in page
    ledger.close()
