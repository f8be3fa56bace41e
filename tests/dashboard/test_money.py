"""The Money page: its sentence, its figures, and that they are those of the report."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from spillway_router.config import load as config
from spillway_router.config.assemble import assembly_of
from spillway_router.config.costs import report_terms
from spillway_router.config.load import Loaded
from spillway_router.dashboard.money import Money, money_page
from spillway_router.dashboard.windows import Window, window_of, words
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.reports.build import report_for
from spillway_router.ledger.reports.days import RangeError, ReportQuery
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.verdict import verdict_of
from spillway_router.testing import MemoryLedger
from spillway_router.testing.business import BACKENDS, fill

FIRST, DAYS = date(2026, 11, 2), 28
AFTER = FIRST + timedelta(days=DAYS)
GPT, OSS = "openai (gpt-4.1)", "groq (gpt-oss-20b)"


def reports(size: int, against: str, *, gpu: str = 'gpu: {price_per_hour: "1.39"}') -> tuple[Report, Report]:
    """Return the reports of four weeks by day, and by key and backend."""
    text = f"backends:{BACKENDS}{gpu}\n"
    loaded = Loaded(config.parse(text, {}), None, text, {})
    terms = report_terms(loaded.settings, assembly_of(loaded, FIRST))
    ledger = MemoryLedger()
    fill(ledger, FIRST, DAYS, Random(7), per_day=40, size=size)
    window = Window("", FIRST, AFTER - timedelta(days=1), against)
    now_ms = start_of(AFTER)
    by_day, by_key = (report_for(ledger, window.query(*by), terms, now_ms) for by in (("day",), ("key", "backend")))
    return by_day, by_key


def page_of(size: int, against: str, *, idle_apart: bool = False) -> tuple[Money, Report]:
    by_day, by_key = reports(size, against)
    return money_page(by_day, by_key, AFTER, idle_apart=idle_apart), by_day


def nano(text: str) -> int:
    """Return the cents of an amount as nano-dollars."""
    return round(float(text.replace("$", "").replace(",", "")) * 1e9)


def test_a_gpu_that_costs_more_is_told_by_how_much_and_from_where_it_pays() -> None:
    page, report = page_of(100, GPT)
    paid = next(one for one in report.alternatives if one.name == GPT)
    assert paid.savings_nano < 0
    more = report.amounts.money(-paid.savings_nano)
    assert page.verdict.sentence == f"The GPU cost {more} more than the same work at {GPT} would have."
    assert page.verdict.tone == "bad"
    assert re.fullmatch(
        r"It pays from about [\d,]+ requests a day; you had \d+ \(\d+% of that\)\.", page.verdict.support[0]
    )
    days = [row for row in report.groups if (row.all_cloud_nano or 0) > row.total_nano]
    assert f"It paid on {len(days) or 'none'} of the {DAYS} full days." in page.verdict.support


def test_a_gpu_that_pays_says_what_it_saved() -> None:
    page, report = page_of(600, GPT)
    paid = next(one for one in report.alternatives if one.name == GPT)
    assert page.verdict.sentence == (
        f"The GPU saved {report.amounts.money(paid.savings_nano)} against the same work at {GPT}."
    )
    assert page.verdict.tone == "good"


def test_days_are_compared_with_the_model_that_was_chosen() -> None:
    for name in (GPT, OSS):
        by_day, _ = reports(100, name)
        chosen = next(one for one in by_day.alternatives if one.name == name)
        whole = sum(row.all_cloud_nano or 0 for row in by_day.groups)
        assert abs(whole - chosen.all_cloud_nano) <= DAYS  # each day is rounded to the nano-dollar
        assert by_day.against == name
    with pytest.raises(RangeError, match="is no priced model here"):
        reports(100, "nowhere")


def test_who_used_it_sums_to_the_report_however_idle_time_is_shown() -> None:
    for idle_apart in (False, True):
        page, report = page_of(100, GPT, idle_apart=idle_apart)
        names = [row.name for row in page.users]
        assert names[:3] == ["billing-service", "support-bot", "data-team"]
        assert ("idle GPU time" in names) is idle_apart
        whole = sum(nano(row.total) for row in page.users)
        assert abs(whole - report.total_nano) <= 10**7 * len(page.users)


def test_without_a_price_of_the_gpu_the_page_asks_for_it() -> None:
    by_day, _ = reports(1, GPT, gpu="")
    assert verdict_of(by_day).tone == "bad"  # the rental has a price of its own
    unpriced = by_day.__class__(**{**_fields(by_day), "unpriced_gpu_hours": 3.0})
    assert verdict_of(unpriced).sentence == "Nobody has said what the GPU costs."


def _fields(report: Report) -> dict[str, object]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}


def test_an_empty_ledger_says_so(tmp_path: Path) -> None:
    text = f"backends:{BACKENDS}"
    loaded = Loaded(config.parse(text, {}), None, text, {})
    terms = report_terms(loaded.settings, assembly_of(loaded, FIRST))
    now_ms = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
    empty = report_for(MemoryLedger(), ReportQuery(month="2026-11", by=("day",)), terms, now_ms)
    page = money_page(empty, empty.__class__(**{**_fields(empty), "groups": ()}), date(2026, 11, 20))
    assert page.is_empty
    assert page.verdict.sentence == "Nothing was asked and nothing was rented in these days."
    unused = empty.__class__(**{**_fields(empty), "unpriced_gpu_hours": 3.0})
    assert verdict_of(unused).sentence == "Nobody has said what the GPU costs."
    assert page.unsure == ()


@pytest.mark.parametrize(
    ("parameters", "first", "last"),
    [
        ({}, "2026-11-01", "2026-11-20"),
        ({"window": "today"}, "2026-11-20", "2026-11-20"),
        ({"window": "yesterday"}, "2026-11-19", "2026-11-19"),
        ({"window": "7d"}, "2026-11-14", "2026-11-20"),
        ({"window": "last-month"}, "2026-10-01", "2026-10-31"),
        ({"window": "nonsense"}, "2026-11-01", "2026-11-20"),
        ({"from": "2026-09-03", "to": "2026-09-05"}, "2026-09-03", "2026-09-05"),
        ({"from": "2026-11-18", "to": "2027-01-01"}, "2026-11-18", "2026-11-20"),
        ({"from": "soon"}, "2026-11-01", "2026-11-20"),
    ],
)
def test_the_days_of_a_page(parameters: dict[str, str], first: str, last: str) -> None:
    window = window_of(parameters, date(2026, 11, 20))
    assert (str(window.first), str(window.last)) == (first, last)


def test_days_in_words() -> None:
    today = date(2026, 11, 20)
    assert words(window_of({}, today), today) == "1 to 20 November 2026, still running"
    assert words(window_of({"window": "yesterday"}, today), today) == "Thursday, 19 November 2026"
