"""What a router's pages and routes, the command line and the raw rows say of the same days, to the nano-dollar.

Random books are read in a reader's time zone and currency: by GET /v1/usage, the Money page's JSON, `spillway report
--json`, and once more from the rows by other means (evidence/money/raw_books.py).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

from evidence.measures_groupings import ALL_GROUPINGS, NAMES, figures_of_json, true_figures
from evidence.money.raw_books import RawBooks, raw_books
from hypothesis import Phase, given, settings, strategies
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.ledger.orphans import SILENT_MS, close_orphans
from spillway_router.ledger.rentals.keeper import Books
from spillway_router.ledger.reports.days import GroupKey
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.books import fill_books
from spillway_router.testing.harness import Router, cloud, routing
from spillway_router.testing.harness import settings as config

FIRST = date(2026, 10, 23)
"""The books cross the change of the clock in Europe and the end of a month."""
DAYS = ("2026-10-22", "2026-11-06")
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Auckland")
CURRENCIES = (
    "",
    ", currency: {code: EUR, per_usd: '0.92', as_of: 2026-10-01}",
    ", currency: {code: JPY, per_usd: '155.03', as_of: 2026-10-01}",
)

Grouping = tuple[GroupKey, ...]


@settings(max_examples=3, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(
    seed=strategies.integers(0, 2**32 - 1),
    zone=strategies.sampled_from(ZONES),
    currency=strategies.sampled_from(CURRENCIES),
    groupings=strategies.lists(strategies.sampled_from(ALL_GROUPINGS), min_size=2, max_size=4, unique=True),
)
def test_every_reader_gets_the_figures_of_the_rows(
    seed: int, zone: str, currency: str, groupings: list[Grouping]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder, "ledger.db"), Random(seed))
        more = f"report: {{timezone: {zone}{currency}}}\n"
        asyncio.run(compare(Path(folder), config(cloud("http://127.0.0.1:9/v1"), more=more), zone, groupings))


def fill(file: Path, rng: Random) -> None:
    """Write books of some days, with all that a router would add to them later."""
    ledger = SqliteLedger.open(file)
    now_ms = int(time.time() * 1000)
    try:
        for at in (1, 4, 8):
            fill_books(rng, ledger, FIRST + timedelta(days=at), f"b{at}", ("cli", "vast"))
        close_orphans(ledger, now_ms + SILENT_MS)
        Books(ledger).settle(now_ms)
        Books(ledger).close_days(now_ms)
        while ledger.sum_up(10_000):
            pass
    finally:
        ledger.close()


async def compare(folder: Path, text: str, zone: str, groupings: list[Grouping]) -> None:
    async with routing(text, folder) as router:
        books = raw_books(folder / "ledger.db", ZoneInfo(zone), *DAYS)
        page = await got(router, "/money.json")
        assert page["by_day"] == await usage(router, ("day",))
        assert page["by_key_and_backend"] == (await usage(router, ("key", "backend")))["groups"]
        for by in (("day",), ("key", "backend"), *groupings):
            report = await usage(router, by)
            assert await asyncio.to_thread(reported, router.path, by) == report
            check(report, books, by)
        # The reader's own zone and the one that the reader names are the same days.
        assert await usage(router, ("day", "key"), timezone=zone) == await usage(router, ("day", "key"))


async def got(router: Router, path: str, **parameters: str) -> Any:
    reply = await router.client.get(path, params={"from": DAYS[0], "to": DAYS[1], **parameters})
    assert reply.status_code == 200, reply.text
    return without_times(reply.json())


async def usage(router: Router, by: Grouping, **parameters: str) -> Any:
    return await got(router, "/v1/usage", by=",".join(by), **parameters)


def reported(path: Path, by: Grouping) -> Any:
    """Return what `spillway report --json` says."""
    words = ["report", "--from", DAYS[0], "--to", DAYS[1], "--by", ",".join(by), "--json", "-c", str(path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return without_times(json.loads(result.stdout))


def without_times(values: Any) -> Any:
    """Return a report without the moment at which it was made, and the forecast, which depends on it."""
    for report in (values, values.get("by_day", {})):
        for name in ("made_ms", "forecast"):
            report.pop(name, None)
    return values


def check(report: dict[str, Any], books: RawBooks, by: Grouping) -> None:
    """Compare the sums and each group with the rows."""
    sums = {name: sum(atom.figures[name] for atom in books.atoms) for name in ("used", "cloud", "answers")}
    assert report["requests"] == books.requests
    assert report["served"]["answers"] == sums["answers"]
    assert report["cloud"]["cost_nano"] == sums["cloud"]
    assert report["fixed"]["billed_nano"] == sum(books.billed.values())
    assert report["fixed"]["used_nano"] == sums["used"]
    assert report["fixed"]["idle_nano"] == sum(books.idle.values())
    figures, true = figures_of_json(json.dumps(report), by), true_figures(books, by)
    for group in {*figures, *true}:
        mine, other = figures.get(group, {}), true.get(group, {})
        wrong = {
            name: (mine.get(name), other.get(name)) for name in NAMES if (mine.get(name) or 0) != (other.get(name) or 0)
        }
        assert not wrong, (by, group, wrong)
