"""The HTML report in a real browser: names stay whole beside large figures, at every width."""

from __future__ import annotations

import re
from datetime import date, timedelta
from random import Random

import pytest
from evidence.dashboard.browser import Place, Visit, look, missing

from spillway_router.config import load as config
from spillway_router.config.assemble import assembly_of
from spillway_router.config.costs import report_terms
from spillway_router.config.load import Loaded
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.reports.build import report_for
from spillway_router.ledger.reports.days import ReportQuery
from spillway_router.testing import MemoryLedger
from spillway_router.testing.asgi import send_answer
from spillway_router.testing.business import BACKENDS, fill
from spillway_router.testing.harness import serving

FIRST = date(2026, 11, 2)


def html_report() -> str:
    """Return the report of a week with token counts of eight digits, by day and decision."""
    text = f"backends:{BACKENDS}"
    loaded = Loaded(config.parse(text, {}), None, text, {})
    terms = report_terms(loaded.settings, assembly_of(loaded, FIRST))
    ledger = MemoryLedger()
    fill(ledger, FIRST, 7, Random(7), per_day=40, size=500)
    last = FIRST + timedelta(days=6)
    query = ReportQuery(first=str(FIRST), last=str(last), by=("day", "decision"))
    return report_html(report_for(ledger, query, terms, start_of(last + timedelta(days=1))))


def test_the_report_begins_with_whether_the_gpu_paid() -> None:
    first = re.sub("<[^>]*>", "", html_report().partition("<h1>")[2].partition("</h1>")[0])
    assert re.fullmatch(r"The GPU cost \$[\d.]+ more than the same work at groq \(gpt-oss-20b\) would have\.", first)


@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_the_report_is_readable_at_three_widths() -> None:
    page = html_report().encode()

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        is_page = scope["path"] == "/"
        await send_answer(send, 200, page if is_page else b"", "text/html; charset=utf-8")

    async with serving(app) as url:
        seen = await look(Visit(url, (Place("report", "/"),)))
    assert (seen.failures, seen.axe, seen.foreign) == ([], [], [])
    assert seen.visits == 6
