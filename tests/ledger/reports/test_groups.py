"""Every grouping and every range tells the same money: nothing lost, nothing twice, to the nano-dollar."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from decimal import Decimal
from io import StringIO
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import Tariff, nano_from_usd, usd
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.closed_days import idle_id, is_closed
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.csv_file import COLUMNS, report_csv
from spillway_router.ledger.reports.days import (
    GROUP_KEYS,
    GroupKey,
    RangeError,
    ReportQuery,
    one_day,
    read_by,
    read_range,
)
from spillway_router.ledger.reports.json_report import report_values
from spillway_router.ledger.reports.model import Report, UnitCosts
from spillway_router.ledger.reports.terminal import render_report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.reports.words import group_name
from spillway_router.ledger.store.postgres.ledger import PostgresLedger
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.feedback import FeedbackRecord
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import MemoryLedger
from spillway_router.testing.books import ExpectedBill, fill_books

FIRST = date(2026, 11, 1)
MINI = Tariff(Decimal("0.15"), Decimal("0.60"))
OSS = Tariff(Decimal("0.075"), Decimal("0.30"))
TERMS = ReportTerms(
    GpuRental(Decimal("1.39")), WorkCoefficients(), {"openai/mini": Offer.of(MINI), "groq/oss": Offer.of(OSS)}
)

Kept = tuple[Ledger, list[ExpectedBill]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "memory"])
def kept(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    ledger: Ledger
    if request.param == "memory":
        ledger = MemoryLedger()
    elif request.param == "sqlite":
        ledger = SqliteLedger.open(tmp_path_factory.mktemp("books") / "spillway.db")
    else:
        ledger = PostgresLedger.open(request.getfixturevalue("postgres").new_database())
    rng = Random(7)
    bills = [fill_books(rng, ledger, FIRST + timedelta(days=4 * number), f"s{number}") for number in range(24)]
    yield ledger, bills
    ledger.close()


def made(ledger: Ledger, bill: ExpectedBill, *by: GroupKey) -> Report:
    return build_report(ledger, bill.range, TERMS, bill.now_ms, by)


def test_reports_equal_the_bills_kept_beside(kept: Kept) -> None:
    ledger, bills = kept
    for bill in bills:
        report = made(ledger, bill)
        assert report.fixed.billed_nano == bill.billed
        assert report.fixed.used_nano + report.fixed.idle_nano == bill.billed
        assert (report.cloud.cost_nano, report.cloud.unsettled_nano) == (bill.cloud + bill.held, bill.held)
        assert report.total_nano == bill.billed + bill.cloud + bill.held
        assert report.served.answers == bill.answers
    assert sum(bill.billed > 0 for bill in bills) > 10
    assert any(made(ledger, bill).fixed.overcommitted for bill in bills)


@pytest.mark.parametrize("by", [*((key,) for key in GROUP_KEYS), ("day", "key"), ("month", "backend", "decision")])
def test_groups_sum_to_the_report(by: tuple[GroupKey, ...], kept: Kept) -> None:
    ledger, bills = kept
    for bill in bills:
        report = made(ledger, bill, *by)
        groups = report.groups
        assert sum(row.used_nano for row in groups) == report.fixed.used_nano
        assert sum(row.idle_nano for row in groups) == report.fixed.idle_nano
        assert sum(row.cloud_nano for row in groups) == report.cloud.cost_nano
        assert sum(row.total_nano for row in groups) == report.total_nano
        assert sum(row.served.answers for row in groups) == report.served.answers
        assert len({(row.idle, *row.keys.values()) for row in groups}) == len(groups)
        assert all(tuple(row.keys) == by for row in groups)


ALL_GROUPINGS = [by for count in range(1, len(GROUP_KEYS) + 1) for by in combinations(GROUP_KEYS, count)]


def test_every_grouping_equals_every_coarser_one(kept: Kept) -> None:
    """What groups tell, added up over a key, is what the grouping without that key tells. All 511 groupings of SQLite,
    and those of up to three keys of the other ledgers: reports group the same sums whatever holds them."""
    ledger, bills = kept
    bill = max(bills, key=lambda bill: (bill.answers, bill.billed))
    groupings = [by for by in ALL_GROUPINGS if len(by) <= 3 or isinstance(ledger, SqliteLedger)]
    figures = {by: figures_of(made(ledger, bill, *by), by) for by in [(), *groupings]}
    for by in groupings:
        for at in range(len(by)):
            coarser = (*by[:at], *by[at + 1 :])
            added: Counter[tuple[str, ...]] = Counter()
            for (*values, name), amount in figures[by].items():
                added[(*values[:at], *values[at + 1 :], name)] += amount
            assert +added == figures[coarser], (by, coarser)


def figures_of(report: Report, by: tuple[GroupKey, ...]) -> Counter[tuple[str, ...]]:
    """Return the amounts and counts of each group by its values and the figure's name, zeros left out."""
    figures: Counter[tuple[str, ...]] = Counter()
    for row in report.groups:
        served = asdict(row.served)
        for name, amount in {"used": row.used_nano, "idle": row.idle_nano, "cloud": row.cloud_nano, **served}.items():
            figures[(*row.keys.values(), name)] += amount
    if not by:
        fixed, cloud = report.fixed, report.cloud
        amounts = {"used": fixed.used_nano, "idle": fixed.idle_nano, "cloud": cloud.cost_nano, **asdict(report.served)}
        figures.update({(name,): amount for name, amount in amounts.items()})
    return +figures


def test_a_month_as_a_group_has_the_units_of_its_report(kept: Kept) -> None:
    ledger, bills = kept
    checked = 0
    for bill in bills:
        report = made(ledger, bill, "month")
        if len(report.groups) == 1:
            assert report.groups[0].units == report.units
            checked += report.units.per_document_nano is not None
    assert checked > 3


@pytest.mark.parametrize("by", [(key,) for key in GROUP_KEYS])
def test_costs_per_unit_include_idle_time_in_every_grouping(by: tuple[GroupKey, ...]) -> None:
    """All work is one group, which used a tenth of an hour that cost 10 dollars."""
    ledger, start = MemoryLedger(), start_of(FIRST)
    hour = RentalRecord(
        id="rent",
        gpu="t4",
        count=1,
        price_nano_per_hour=10**10,
        kind="reserved",
        started_ms=start,
        stopped_ms=start + 3_600_000,
        source="cli",
    )
    ledger.rentals.add(hour)
    work: dict[str, Any] = {
        "local": True,
        "status": "ok",
        "document": True,
        "gpu_us": 180_000_000,
        "prompt_tokens": 500,
    }
    ledger.append([Entry(kind="charged", request_id=f"r{n}", attempt_no=1, ts=start + n, **work) for n in range(2)])
    report = build_report(ledger, one_day(FIRST), TERMS, start + 86_400_000, by)
    assert report.units == UnitCosts(5 * 10**9, 10**10, 5 * 10**9)
    assert [row.units for row in report.groups if row.served.answers] == [report.units]


@pytest.mark.parametrize("by", [("key",), ("decision",)])
def test_a_report_with_too_many_groups_is_refused(by: tuple[GroupKey, ...], kept: Kept) -> None:
    ledger, bills = kept
    bill = max(bills, key=lambda bill: bill.answers)
    count = len(made(ledger, bill, *by).groups)
    assert len(build_report(ledger, bill.range, TERMS, bill.now_ms, by, most_groups=count).groups) == count
    with pytest.raises(RangeError, match="ask for fewer days"):
        build_report(ledger, bill.range, TERMS, bill.now_ms, by, most_groups=count - 1)


def test_a_key_costs_what_its_calls_cost(kept: Kept) -> None:
    ledger, bills = kept
    for bill in bills:
        groups = {row.keys["key"]: row.cloud_nano for row in made(ledger, bill, "key").groups if not row.idle}
        assert {key: nano for key, nano in groups.items() if nano} == {k: n for k, n in bill.by_key.items() if n}


def test_a_range_is_the_sum_of_its_days(kept: Kept) -> None:
    ledger, bills = kept
    for bill in bills:
        whole = made(ledger, bill, "day")
        days = [bill.range.first + timedelta(days=n) for n in range(bill.range.days)]
        singles = [build_report(ledger, one_day(day), TERMS, bill.now_ms) for day in days]
        for pick in (lambda r: r.fixed.used_nano, lambda r: r.fixed.idle_nano, lambda r: r.cloud.cost_nano):
            assert sum(map(pick, singles)) == pick(whole)
        by_day = {row.keys["day"]: (row.used_nano, row.idle_nano) for row in whole.groups}
        for day, single in zip(days, singles, strict=True):
            assert by_day.get(day.isoformat(), (0, 0)) == (single.fixed.used_nano, single.fixed.idle_nano)


def test_idle_rows_of_closed_days_are_the_reports_idle_time(kept: Kept) -> None:
    ledger, bills = kept
    closed = 0
    for bill in bills:
        for number in range(bill.range.days):
            day = bill.range.first + timedelta(days=number)
            if is_closed(ledger, start_of(day)):
                (row,) = ledger.entries_of(idle_id(day.isoformat()))
                report = build_report(ledger, one_day(day), TERMS, bill.now_ms)
                rented_us = round(report.fixed.gpu_hours * 3.6e9)
                assert (row.kind, row.amount_nano) == ("idle", report.fixed.idle_nano)
                assert row.gpu_us == rented_us - round(report.fixed.utilisation * rented_us)
                assert start_of(day) <= row.ts < start_of(day + timedelta(days=1))
                closed += 1
    assert closed > 5


def test_csv_sums_to_the_report(kept: Kept) -> None:
    ledger, bills = kept
    for bill in bills:
        report = made(ledger, bill, "day", "decision")
        rows = list(csv.DictReader(StringIO(report_csv(report))))
        assert rows or not report.total_nano
        for row in rows:
            assert tuple(row) == ("day", "decision", *COLUMNS)
        assert sum(nano_from_usd(row["total_usd"]) for row in rows) == report.total_nano
        idle = sum(nano_from_usd(row["fixed_idle_usd"]) for row in rows if row["idle"] == "yes")
        assert idle == report.fixed.idle_nano


def test_json_has_every_group_with_decimal_text(kept: Kept) -> None:
    ledger, bills = kept
    values = report_values(made(ledger, bills[0], "tier"))
    for row in values["groups"]:
        assert row["total_usd"] == usd(row["total_nano"])


def test_the_cheapest_alternative_prices_each_group(kept: Kept) -> None:
    ledger, bills = kept
    report = made(ledger, max(bills, key=lambda bill: bill.answers), "model")
    assert report.cheapest == "groq/oss"
    parts: Sequence[int] = [row.all_cloud_nano for row in report.groups if row.all_cloud_nano is not None]
    whole = next(a.all_cloud_nano for a in report.alternatives if a.name == "groq/oss")
    assert abs(sum(parts) - whole) <= len(parts), "each group is rounded by itself"


def test_api_keys_are_shown_by_name(tmp_path: Path) -> None:
    ledger = SqliteLedger.open(tmp_path / "x.db")
    key = KeyStore(ledger.keys).create(KeySpec("ann"), b"ann123", bytes(32), 1)
    ts = start_of(FIRST)
    paid = Entry(
        kind="charged", request_id="r", attempt_no=1, ts=ts, key_id=key.record.id, amount_nano=5, tariff_ref="t"
    )
    ledger.append((paid,))
    (row,) = build_report(ledger, one_day(FIRST), TERMS, ts + 1, ("key",)).groups
    ledger.close()
    assert (row.keys, row.labels) == ({"key": key.record.id}, {"key": "ann"})
    assert group_name(row, "key") == f"ann ({key.record.id})"


def test_html_is_one_safe_file(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    with_names = ReportTerms(TERMS.gpu, TERMS.coefficients, {f"{evil}&co": Offer.of(MINI)})
    ledger = SqliteLedger.open(tmp_path / "x.db")
    fill_books(Random(3), ledger, FIRST, "h")
    report = build_report(ledger, one_day(FIRST), with_names, start_of(FIRST) + 86_400_000, ("day", "key"))
    ledger.close()
    text = report_html(report)
    assert evil not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;co" in text
    for outside in ("http://", "https://", "<script", "<link", "<img", "@import", "url("):
        assert outside not in text
    for part in ('name="viewport"', "prefers-color-scheme:dark", "Fixed: rented GPU", "Per request: cloud"):
        assert part in text


def test_feedback_is_in_both_reports_with_the_models_name_as_it_is() -> None:
    ledger = MemoryLedger()
    ts = start_of(FIRST)
    ledger.feedback.put(FeedbackRecord(request_id="r1", ts=ts, key_id="k", backend="local", model="m[x]<y>", rating=5))
    report = build_report(ledger, one_day(FIRST), TERMS, ts + 1)
    assert "local/m[x]&lt;y&gt;</th><td>1</td><td>5.0</td><td>100%</td>" in report_html(report)
    shown = StringIO()
    render_report(report, Console(file=shown, width=150))
    assert "local/m[x]<y>" in shown.getvalue()


# what people write


def test_ranges() -> None:
    today = date(2026, 11, 21)
    assert read_range(ReportQuery(), start_of(today)) == one_day(today)
    assert read_range(ReportQuery(day="2026-02-28"), start_of(today)).after == date(2026, 3, 1)
    month = read_range(ReportQuery(month="2026-12"), start_of(today))
    assert (month.first, month.after, month.days, month.name) == (date(2026, 12, 1), date(2027, 1, 1), 31, "2026-12")
    assert read_range(ReportQuery(month="this"), start_of(today)).first == date(2026, 11, 1)
    some = read_range(ReportQuery(first="2026-11-01"), start_of(today))
    assert (some.days, some.name) == (21, "2026-11-01..2026-11-21")
    assert read_range(ReportQuery(first="2026-11-03", last="2026-11-03"), start_of(today)).name == "2026-11-03"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (ReportQuery(day="20.11.2026"), "day"),
        (ReportQuery(month="2026"), "month"),
        (ReportQuery(first="2026-11-02", last="2026-11-01"), "to"),
        (ReportQuery(last="2026-11-01"), "from"),
        (ReportQuery(day="today", month="this"), "month"),
        (ReportQuery(first="1900-01-01"), "to"),
        (ReportQuery(timezone="Mars/Olympus"), "timezone"),
    ],
)
def test_what_is_no_range_is_told(asked: ReportQuery, param: str) -> None:
    with pytest.raises(RangeError) as raised:
        read_range(asked, start_of(date(2026, 11, 21)))
    assert raised.value.param == param


def test_groupings_are_read_from_words() -> None:
    assert read_by(("day,key", "key")) == ("day", "key")
    with pytest.raises(RangeError, match="decision"):
        read_by(("colour",))
