"""The HTML report in a real browser: names stay whole beside large figures, at every width."""

from __future__ import annotations

import asyncio
import re
import shutil
from datetime import date, timedelta
from html import unescape
from pathlib import Path
from random import Random

import pypdfium2
import pytest
from evidence.dashboard.browser import BROWSERS, Place, Visit, look, missing

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


def words_of(html: str) -> str:
    return " ".join(unescape(re.sub("<[^>]*>", "", html)).split())


async def printed(page: str, folder: Path) -> tuple[str, ...]:
    """Return the words on each sheet that Chromium prints; what lies beyond the edge of a sheet is not among them."""
    browser = next(path for name in BROWSERS if (path := shutil.which(name)))
    source, sheets = folder / "report.html", folder / "report.pdf"
    source.write_text(page)
    ways = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer")
    places = (f"--user-data-dir={folder / 'browser'}", f"--print-to-pdf={sheets}", source.as_uri())
    process = await asyncio.create_subprocess_exec(browser, *ways, *places, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(100):
        assert await process.wait() == 0
    with pypdfium2.PdfDocument(sheets) as document:
        return tuple(" ".join(sheet.get_textpage().get_text_bounded().split()) for sheet in document)


@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_the_printed_report_has_every_figure_and_begins_with_the_verdict(tmp_path: Path) -> None:
    page = html_report()
    sheets = await printed(page, tmp_path)
    assert words_of(page.partition("<h1>")[2].partition("</h1>")[0]) in sheets[0]
    cells = [words_of(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", page, re.DOTALL)]
    whole = " ".join(sheets)
    assert len(cells) > 100
    assert [cell for cell in cells if cell not in whole] == []


@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_a_report_that_is_cut_off_in_print_is_noticed(tmp_path: Path) -> None:
    """A seeded fault: the test above can fail."""
    cut = html_report().replace("</table>", "</table><p style='position: absolute; left: 5000px'>beyond</p>", 1)
    assert "beyond" not in " ".join(await printed(cut, tmp_path))
