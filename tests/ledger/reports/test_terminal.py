"""The report as people and pipes read it: the verdict first, names and digits at any width, days by their names."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import orjson
import pytest
from rich.console import Console

from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import Tariff
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GroupKey, RangeError, ReportQuery, one_day, read_range
from spillway_router.ledger.reports.json_report import report_of_values, report_values
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terminal import groups_tsv, render_report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.reports.verdict import verdict_of
from spillway_router.testing import MemoryLedger

DAY = date(2026, 11, 20)
START, END = one_day(DAY).start_ms, one_day(DAY).end_ms
HOUR_MS = 3_600_000
NAME = "documents-of-the-insurance-department"


def report_of(price: str, *by: GroupKey, answers: int = 2) -> Report:
    """Return the report of a day on which a GPU for $1.39 gave `answers` answers of a million tokens each."""
    ledger = MemoryLedger()
    ledger.rentals.add(
        RentalRecord(
            id="rent_a",
            gpu="t4",
            count=1,
            price_nano_per_hour=1_390_000_000,
            kind="reserved",
            started_ms=START,
            stopped_ms=START + HOUR_MS,
            source="cli",
        )
    )
    tokens = {"prompt_tokens": 900_000, "completion_tokens": 100_000}
    shape: dict[str, Any] = {"status": "ok", "backend": "local", "model": "demo", **tokens}
    ledger.append(
        [
            Entry(
                kind="charged",
                request_id=f"r{i}",
                attempt_no=1,
                ts=START + 5,
                local=True,
                gpu_us=10**9,
                decision="local",
                task=NAME,
                **shape,
            )
            for i in range(answers)
        ]
    )
    tariff = Tariff(Decimal(price), Decimal(price), valid_from="2026-01-01", source="groq")
    terms = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), {"groq/oss": Offer.of(tariff)})
    return build_report(ledger, one_day(DAY), terms, END, by)


def shown(report: Report, width: int) -> str:
    text = StringIO()
    render_report(report, Console(file=text, width=width))
    return text.getvalue()


def test_the_first_line_says_whether_the_gpu_paid() -> None:
    paid = shown(report_of("1"), 120).splitlines()[0]
    assert paid == "The GPU saved $0.6100 against the same work at groq/oss."
    lost = shown(report_of("0.1"), 200).splitlines()
    assert lost[0] == "The GPU cost $1.19 more than the same work at groq/oss would have."
    assert lost[1].startswith("It would pay from about 334 requests a day, which is more than it can answer")
    dear = verdict_of(report_of("100000"))
    assert dear.support[0].startswith("It pays from the first request on; you had ")
    nothing = verdict_of(report_of("1", answers=0))
    assert nothing.sentence == "The GPU was rented for $1.39 and answered nothing."


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_and_its_legend_share_one_line(width: int) -> None:
    (line,) = [line for line in shown(report_of("1", answers=0), width).splitlines() if "idle 100.0%" in line]
    assert line.rstrip().endswith("cloud 0.0%")


def test_the_file_says_what_the_terminal_and_the_money_page_say() -> None:
    for price in ("1", "0.1"):
        report = report_of(price)
        verdict = verdict_of(report)
        page = report_html(report)
        heading, below = page.partition("<h1>")[2].split("</h1>", 1)
        assert re.sub("<[^>]*>", "", heading) == verdict.sentence
        assert below.startswith(f'\n<p class="lead">{verdict.support[0]}')
        assert shown(report, 300).startswith(f"{verdict.sentence}\n{verdict.support[0]}")


def test_differences_are_words_and_not_signs() -> None:
    assert "$1.19 less" in shown(report_of("0.1"), 120)
    assert "$0.6100 more" in shown(report_of("1"), 120)
    assert "-$" not in shown(report_of("0.1"), 120)


@pytest.mark.parametrize("width", [60, 70, 80, 90, 100, 110, 160])
def test_a_narrow_terminal_loses_bars_and_columns_but_no_name_and_no_digit(width: int) -> None:
    text = shown(report_of("1", "task", "decision"), width)
    table = text.partition("By task, decision")[2].partition("Instead of both")[0]
    assert NAME in table.replace("\n", "").replace(" ", "") if width < 70 else NAME in table
    assert "$0.7722" in table  # the total of the row of used time
    assert "…" not in table
    assert max(map(len, text.splitlines())) <= width
    assert ("█" in table) is (width >= 160)


def test_a_pipe_gets_every_column_between_tabs() -> None:
    head, *rows = groups_tsv(report_of("1", "task", "decision")).splitlines()
    assert head.split("\t")[:3] == ["task", "decision", "answers"]
    (served,) = [row.split("\t") for row in rows if row.startswith(NAME)]
    assert served[1:4] == ["local", "2", "$0.7722"]
    assert all(len(row.split("\t")) == len(head.split("\t")) for row in rows)


def test_a_report_comes_back_from_its_json() -> None:
    report = report_of("1", "task", "decision")
    assert report_of_values(orjson.loads(orjson.dumps(report_values(report)))) == report


@pytest.mark.parametrize(
    ("query", "first", "days"),
    [
        (ReportQuery(day="yesterday"), date(2026, 11, 29), 1),
        (ReportQuery(month="last"), date(2026, 10, 1), 31),
        (ReportQuery(first="7d"), date(2026, 11, 24), 7),
        (ReportQuery(first="1d"), date(2026, 11, 30), 1),
        (ReportQuery(first="30d", last="yesterday"), date(2026, 11, 1), 29),
    ],
)
def test_days_have_names(query: ReportQuery, first: date, days: int) -> None:
    now_ms = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp() * 1000)
    period = read_range(query, now_ms)
    assert (period.first, period.after) == (first, first + timedelta(days=days))


@pytest.mark.parametrize("query", [ReportQuery(day="7d"), ReportQuery(first="0d"), ReportQuery(month="next")])
def test_other_names_are_refused_with_those_that_exist(query: ReportQuery) -> None:
    with pytest.raises(RangeError, match=r"yesterday|last"):
        read_range(query, END)
