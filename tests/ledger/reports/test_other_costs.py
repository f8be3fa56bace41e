"""Other fixed costs are lines of their own in every form of a report; an unknown price of the GPU heads it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.dashboard.letter import letter_of
from spillway_router.dashboard.report_file import Breakdown, report_html
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import OtherCost, RentalRecord
from spillway_router.ledger.rentals.keeper import Books
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.csv_file import report_csv
from spillway_router.ledger.reports.days import GROUP_KEYS, GroupKey, ReportRange
from spillway_router.ledger.reports.export import export_focus
from spillway_router.ledger.reports.json_report import report_json
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terminal import render_report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

DOLLAR = 10**9
NOVEMBER = ReportRange(date(2026, 11, 1), date(2026, 12, 1), "2026-11")
END = start_of(date(2026, 12, 1))
TERMS = ReportTerms(GpuRental(Decimal("0.3424657534")), WorkCoefficients(), {})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A month of the user's own table: a GPU for 250 a month, a database and hosting for 50 each."""
    opened = filled(tmp_path)
    Books(opened).settle(END)
    yield opened
    opened.close()


def filled(folder: Path) -> SqliteLedger:
    opened = SqliteLedger.open(folder / "spillway.db")
    opened.rentals.add(
        RentalRecord(
            id="rent_1",
            gpu="a100-80",
            count=1,
            price_nano_per_hour=342_465_753,
            kind="reserved",
            started_ms=start_of(date(2026, 10, 20)),
            stopped_ms=None,
            source="cli",
            price_nano_per_month=250 * DOLLAR,
        )
    )
    for name in ("database", "hosting"):
        opened.other_costs.add(
            OtherCost(
                id=f"cost-{name}-1",
                name=name,
                price_nano_per_month=50 * DOLLAR,
                started_ms=start_of(date(2026, 10, 20)),
                stopped_ms=None,
            )
        )
    document = Entry(
        kind="charged",
        request_id="r1",
        attempt_no=1,
        ts=start_of(date(2026, 11, 3)),
        backend="local",
        provider="vllm",
        model="m",
        local=True,
        decision="local",
        status="ok",
        prompt_tokens=900,
        completion_tokens=100,
        gpu_us=10**9,
        document=True,
    )
    opened.append((document,))
    return opened


def report_of(ledger: SqliteLedger, *by: GroupKey) -> Report:
    return build_report(ledger, NOVEMBER, TERMS, END, by)


def text_of(report: Report) -> str:
    out = StringIO()
    render_report(report, Console(file=out, width=200))
    return out.getvalue()


def test_the_month_is_what_the_table_says(ledger: SqliteLedger) -> None:
    report = report_of(ledger)
    assert report.fixed.billed_nano == 250 * DOLLAR
    assert [(row.name, row.billed_nano) for row in report.other.rows] == [
        ("database", 50 * DOLLAR),
        ("hosting", 50 * DOLLAR),
    ]
    assert (report.total_nano, report.fixed.gpus) == (350 * DOLLAR, 1)
    assert report.units.per_request_nano == 250 * DOLLAR, "unit costs leave other fixed costs out"


def test_they_are_lines_of_their_own_for_people_and_programs(ledger: SqliteLedger) -> None:
    report = report_of(ledger)
    text, page = text_of(report), report_html(report)
    assert all(word in text and word in page for word in ("database", "hosting", "$50.00", "$100.00"))
    values = json.loads(report_json(report))
    assert values["other"]["billed_usd"] == "100.000000"
    assert [row["price_per_month_usd"] for row in values["other"]["rows"]] == ["50.00", "50.00"]
    assert "a100-80 at $250.00/month" in text_of(
        replace(report, fixed=replace(report.fixed, rentals=2 * report.fixed.rentals))
    )


@pytest.mark.parametrize("by", [(key,) for key in GROUP_KEYS] + [("day", "model")])
def test_every_grouping_contains_them_once(ledger: SqliteLedger, by: tuple[GroupKey, ...]) -> None:
    report = report_of(ledger, *by)
    assert sum(row.total_nano for row in report.groups) == report.total_nano
    assert sum(row.other_nano for row in report.groups) == 100 * DOLLAR
    lines = list(csv.DictReader(StringIO(report_csv(report))))
    assert sum(Decimal(line["other_fixed_usd"]) for line in lines) == 100
    assert sum(Decimal(line["total_usd"]) for line in lines) == 350
    if not {"day", "month"}.issuperset(by):
        assert "(other fixed costs)" in text_of(report)


@pytest.mark.parametrize("daily", [False, True])
def test_focus_has_a_purchase_per_day_and_both_columns_agree(ledger: SqliteLedger, daily: bool) -> None:
    out = StringIO()
    export_focus(ledger, NOVEMBER, END, out, daily=daily)
    rows = list(csv.DictReader(StringIO(out.getvalue())))
    mine = [row for row in rows if row["ResourceType"] == "Fixed cost"]
    assert len(mine) == 60
    assert {row["ChargeCategory"] for row in mine} == {"Purchase"}
    assert sum(Decimal(row["BilledCost"]) for row in mine) == 100
    assert sum(Decimal(row["BilledCost"]) for row in rows) == 350
    assert sum(Decimal(row["EffectiveCost"]) for row in rows) == 350


def test_the_forecast_has_them(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    report = build_report(ledger, NOVEMBER, TERMS, start_of(date(2026, 11, 16)))
    assert report.forecast is not None
    assert (report.forecast.other_nano, report.forecast.fixed_nano) == (100 * DOLLAR, 250 * DOLLAR)
    assert report.forecast.total_nano == 350 * DOLLAR
    assert "other fixed costs $100.00" in " ".join(text_of(report).split())
    ledger.close()


def test_an_unknown_price_heads_the_report_and_a_known_0_does_not(ledger: SqliteLedger) -> None:
    ledger.rentals.add(
        RentalRecord(
            id="rent_2",
            gpu="",
            count=1,
            price_nano_per_hour=0,
            kind="reserved",
            started_ms=start_of(date(2026, 11, 1)),
            stopped_ms=start_of(date(2026, 11, 2)),
            source="router",
        )
    )
    unknown = replace(TERMS, gpu=GpuRental(Decimal(0)), price_known=False)
    report = build_report(ledger, NOVEMBER, unknown, END)
    assert report.unpriced_gpu_hours == 24
    first, cure, title, warning, *_ = text_of(report).splitlines()
    assert first == "Nobody has said what the GPU costs."
    assert cure.startswith("Set gpu.price_per_hour")
    assert title.startswith("Spillway")
    assert warning.startswith("THE PRICE OF THE GPU IS UNKNOWN: 24.000 GPU-hours")
    assert "THE PRICE OF THE GPU IS UNKNOWN" in report_html(report)
    assert report.all_local is None
    assert letter_of(Breakdown(report, report), report).values["gpu_usd"] is None
    own = replace(TERMS, gpu=GpuRental(Decimal(0)), price_known=True)
    assert "UNKNOWN" not in text_of(build_report(ledger, NOVEMBER, own, END))
    later = build_report(ledger, NOVEMBER, TERMS, END)
    assert later.unpriced_gpu_hours == 24, "a price that is given later doesn't put right what is booked"
