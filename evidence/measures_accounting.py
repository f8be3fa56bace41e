"""Used + Unused = Billed, on random books of every kind, as every report and grouping tells them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

from evidence.results import Measurement
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import Tariff
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reports.build import ReportTerms, build_report
from spillway_router.ledger.reports.days import GROUP_KEYS, GroupKey, ReportRange, one_day
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.books import ExpectedBill, fill_books

USED_PLUS_UNUSED = "accounting.used_plus_unused_minus_billed"
BOOKS = 1000
PER_LEDGER = 100
SEED = 20261120
_FIRST = date(2020, 1, 1)
_MINI = Tariff(Decimal("0.15"), Decimal("0.60"))
_TERMS = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), {"mini": _MINI})

Build = Callable[[Ledger, ReportRange, ReportTerms, int, tuple[GroupKey, ...]], Report]


@dataclass(slots=True)
class _Found:
    worst: int = 0
    comparisons: int = 0
    where: str = ""
    seen: dict[str, int] = field(default_factory=dict)

    def compare(self, what: str, told: int, true: int) -> None:
        self.comparisons += 1
        off = abs(told - true)
        if off > self.worst:
            self.worst, self.where = off, what

    def saw(self, what: str, yes: bool) -> None:
        self.seen[what] = self.seen.get(what, 0) + yes


def used_plus_unused(
    say: Callable[[str], None], books: int = BOOKS, build: Build = build_report
) -> dict[str, Measurement]:
    """Largest difference in nano-dollars, over random books in SQLite: rentals of all kinds (short, overlapping, free,
    repriced, without rows yet), more work than time, drafts, retries, holds, adjustments. Compared are used + unused
    with an independent bill, and every grouping, day and the idle rows of closed days with the whole."""
    rng = Random(SEED)
    found = _Found()
    for at in range(0, books, PER_LEDGER):
        with tempfile.TemporaryDirectory() as folder:
            ledger = SqliteLedger.open(Path(folder) / "spillway.db")
            for number in range(at, min(books, at + PER_LEDGER)):
                first = _FIRST + timedelta(days=4 * (number - at))
                bill = fill_books(rng, ledger, first, f"b{number}")
                _check(found, ledger, bill, (rng.choice(GROUP_KEYS), rng.choice(GROUP_KEYS)), build)
            ledger.close()
        say(f"  {min(books, at + PER_LEDGER)} of {books} books, {found.comparisons:,} comparisons")
    details = {
        "comparisons": found.comparisons,
        "worst_where": found.where,
        "seed": SEED,
        "books_with": found.seen,
    }
    return {USED_PLUS_UNUSED: Measurement(found.worst, books, details)}


def _check(found: _Found, ledger: Ledger, bill: ExpectedBill, by: tuple[GroupKey, GroupKey], build: Build) -> None:
    keys = tuple(dict.fromkeys(by))
    report = build(ledger, bill.range, _TERMS, bill.now_ms, keys)
    fixed, groups = report.fixed, report.groups
    found.compare("used + unused and the bill", fixed.used_nano + fixed.idle_nano, bill.billed)
    found.compare("billed and the bill", fixed.billed_nano, bill.billed)
    found.compare("used by model", sum(row.used_nano for row in fixed.rows), fixed.used_nano)
    grouped = sum(row.used_nano + row.idle_nano for row in groups)
    found.compare(f"used + unused by {', '.join(keys)}", grouped, bill.billed)
    found.compare(f"cloud by {', '.join(keys)}", sum(row.cloud_nano for row in groups), bill.cloud + bill.held)
    parts = [
        build(ledger, one_day(bill.range.first + timedelta(days=n)), _TERMS, bill.now_ms, ())
        for n in range(bill.range.days)
    ]
    found.compare("used + unused day by day", sum(p.fixed.used_nano + p.fixed.idle_nano for p in parts), bill.billed)
    for part, idle in zip(parts, _idle_rows(ledger, bill), strict=True):
        if idle is not None:
            found.compare("unused of a closed day", idle, part.fixed.idle_nano)
            found.saw("closed days", True)
    found.saw("rented time", fixed.gpu_hours > 0)
    found.saw("used time", fixed.used_nano > 0)
    found.saw("more work than time", fixed.overcommitted)
    found.saw("open holds", bool(report.cloud.unsettled))
    found.saw("several rentals", len(fixed.rentals) > 1)


def _idle_rows(ledger: Ledger, bill: ExpectedBill) -> Iterator[int | None]:
    for number in range(bill.range.days):
        day = bill.range.first + timedelta(days=number)
        rows = ledger.entries_of(f"idle-{day.isoformat()}")
        yield rows[0].amount_nano if rows else None
