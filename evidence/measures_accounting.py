"""Used + Unused = Billed, on random books of every kind, in every report and grouping."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

from evidence.results import Measurement
from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.tariff import Tariff
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GROUP_KEYS, GroupKey, ReportRange, one_day
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.books import ExpectedBill, fill_books

USED_PLUS_UNUSED = "accounting.used_plus_unused_minus_billed"
BOOKS = 1000
PER_LEDGER = 100
SEED = 20261120
_FIRST = date(2020, 1, 1)
_MINI = Tariff(Decimal("0.15"), Decimal("0.60"))
_TERMS = ReportTerms(GpuRental(Decimal("1.39")), WorkCoefficients(), {"mini": Offer.of(_MINI)})

Build = Callable[[Ledger, ReportRange, ReportTerms, int, tuple[GroupKey, ...]], Report]


@dataclass(slots=True)
class _Comparisons:
    worst: int = 0
    comparisons: int = 0
    where: str = ""
    seen: dict[str, int] = field(default_factory=dict)

    def compare(self, what: str, reported: int, true: int) -> None:
        self.comparisons += 1
        off = abs(reported - true)
        if off > self.worst:
            self.worst, self.where = off, what

    def count(self, what: str, seen: bool) -> None:
        self.seen[what] = self.seen.get(what, 0) + seen


def used_plus_unused(
    say: Callable[[str], None], books: int = BOOKS, build: Build = build_report
) -> dict[str, Measurement]:
    """Measure the largest difference in nano-dollars, over random books in SQLite.

    The books have rentals of all kinds (short, overlapping, free, repriced, without rows yet), more work than time,
    drafts, retries, holds and adjustments. Used + unused is compared with an independent bill; every grouping, every
    day and the idle rows of closed days are compared with the whole.
    """
    rng = Random(SEED)
    comparisons = _Comparisons()
    for at in range(0, books, PER_LEDGER):
        with tempfile.TemporaryDirectory() as folder:
            ledger = SqliteLedger.open(Path(folder) / "spillway.db")
            for number in range(at, min(books, at + PER_LEDGER)):
                first = _FIRST + timedelta(days=4 * (number - at))
                bill = fill_books(rng, ledger, first, f"b{number}")
                _check(comparisons, ledger, bill, (rng.choice(GROUP_KEYS), rng.choice(GROUP_KEYS)), build)
            ledger.close()
        say(f"  {min(books, at + PER_LEDGER)} of {books} books, {comparisons.comparisons:,} comparisons")
    details = {
        "comparisons": comparisons.comparisons,
        "worst_where": comparisons.where,
        "seed": SEED,
        "books_with": comparisons.seen,
    }
    return {USED_PLUS_UNUSED: Measurement(comparisons.worst, books, details)}


def _check(
    comparisons: _Comparisons, ledger: Ledger, bill: ExpectedBill, by: tuple[GroupKey, GroupKey], build: Build
) -> None:
    keys = tuple(dict.fromkeys(by))
    report = build(ledger, bill.range, _TERMS, bill.now_ms, keys)
    fixed, groups = report.fixed, report.groups
    comparisons.compare("used + unused and the bill", fixed.used_nano + fixed.idle_nano, bill.billed)
    comparisons.compare("billed and the bill", fixed.billed_nano, bill.billed)
    comparisons.compare("used by model", sum(row.used_nano for row in fixed.rows), fixed.used_nano)
    grouped = sum(row.used_nano + row.idle_nano for row in groups)
    comparisons.compare(f"used + unused by {', '.join(keys)}", grouped, bill.billed)
    comparisons.compare(f"cloud by {', '.join(keys)}", sum(row.cloud_nano for row in groups), bill.cloud + bill.held)
    parts = [
        build(ledger, one_day(bill.range.first + timedelta(days=n)), _TERMS, bill.now_ms, ())
        for n in range(bill.range.days)
    ]
    comparisons.compare(
        "used + unused day by day", sum(p.fixed.used_nano + p.fixed.idle_nano for p in parts), bill.billed
    )
    for part, idle in zip(parts, _idle_rows(ledger, bill), strict=True):
        if idle is not None:
            comparisons.compare("unused of a closed day", idle, part.fixed.idle_nano)
            comparisons.count("closed days", True)
    comparisons.count("rented time", fixed.gpu_hours > 0)
    comparisons.count("used time", fixed.used_nano > 0)
    comparisons.count("more work than time", fixed.overcommitted)
    comparisons.count("open holds", bool(report.cloud.unsettled))
    comparisons.count("several rentals", len(fixed.rentals) > 1)


def _idle_rows(ledger: Ledger, bill: ExpectedBill) -> Iterator[int | None]:
    for number in range(bill.range.days):
        day = bill.range.first + timedelta(days=number)
        rows = ledger.entries_of(f"idle-{day.isoformat()}")
        yield rows[0].amount_nano if rows else None
