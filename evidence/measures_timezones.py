"""Days and months of a reader's time zone, and amounts in a reader's currency, against the UTC ledger in US dollars.

Random books around the days on which clocks change are reported day by day in zones with whole, half and quarter hours.
Over all days of a zone, money and counts must add up to the raw rows; each day by itself, and each API key on it, must
be what the rows of that day add up to by other means (money/raw_books.py).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

from evidence.measures_groupings import Tables
from evidence.money.raw_books import raw_books, rows_of
from evidence.results import Measurement
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.currency import Currency
from spillway_router.dashboard.report_file import report_html
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GroupKey, ReportRange, one_day
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.testing.books import fill_books

TIMEZONE_SUMS = "money.fx_and_timezone_sums"
LEDGERS = 40
SEED = 20261025
ZONES = (
    "Europe/Berlin",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Pago_Pago",
)
_STARTS = (date(2026, 3, 28), date(2026, 4, 4), date(2026, 10, 24), date(2026, 10, 31))
"""Days around the changes of the clock in Europe, Australia and America, and the ends of two months."""
_RATE = Decimal("0.92")
_TERMS = ReportTerms(
    GpuRental(Decimal("1.39")), WorkCoefficients(), {}, currency=Currency("EUR", str(_RATE), "2026-11-01")
)

Build = Callable[[Ledger, ReportRange, ReportTerms, int, tuple[GroupKey, ...]], Report]


@dataclass(slots=True)
class _Differences:
    nano: int = 0
    comparisons: int = 0
    first: list[str] = field(default_factory=list)

    def compare(self, what: str, reported: int, true: int) -> None:
        self.comparisons += 1
        self.nano += abs(reported - true)
        if reported != true and len(self.first) < 10:
            self.first.append(f"{what}: {reported}, not {true}")


def timezone_sums(
    say: Callable[[str], None], ledgers: int = LEDGERS, build: Build = build_report
) -> dict[str, Measurement]:
    """Sum up the differences in nano-dollars; a count that differs by one counts as one, too."""
    differences = _Differences()
    for number in range(ledgers):
        with tempfile.TemporaryDirectory() as folder:
            _check_ledger(differences, Path(folder, "spillway.db"), number, build)
        say(f"  {number + 1} of {ledgers} ledgers: {differences.nano} in {differences.comparisons:,} comparisons")
    details = {"zones": ZONES, "first_differences": differences.first, "seed": SEED}
    return {TIMEZONE_SUMS: Measurement(differences.nano, differences.comparisons, details)}


def _check_ledger(differences: _Differences, file: Path, number: int, build: Build) -> None:
    rng = Random(SEED + number)
    start = _STARTS[number % len(_STARTS)]
    ledger = SqliteLedger.open(file)
    for at in range(3):
        fill_books(rng, ledger, start + timedelta(days=at), f"b{at}")
        ledger.sum_up(rng.choice((0, 30, 1000)))
    days = ReportRange(start - timedelta(days=1), start + timedelta(days=8), "all")
    RentalBooks(ledger).write_due(days.end_ms + 86_400_000)
    for name in ZONES:
        _check_zone(differences, ledger, file, (days, name), build)
    ledger.close()


def _check_zone(
    differences: _Differences, ledger: Ledger, file: Path, where: tuple[ReportRange, str], build: Build
) -> None:
    days, name = where
    zone = ZoneInfo(name)
    now_ms = days.end_ms + 86_400_000
    books = raw_books(file, zone, days.first.isoformat(), days.after.isoformat())
    added: Counter[str] = Counter()
    for at in range(days.days):
        day = one_day(days.first + timedelta(days=at), zone)
        report = build(ledger, day, _TERMS, now_ms, ("key",))
        reported = _amounts(report)
        added.update(reported)
        mine = [atom for atom in books.atoms if atom.keys["day"] == day.name]
        true = Counter({"billed": books.billed.get(day.name, 0), "idle": books.idle.get(day.name, 0)})
        for atom in mine:
            for figure in ("used", "cloud", "answers", "prompt_tokens", "completion_tokens"):
                true[figure] += atom.figures[figure]
        for figure in ("billed", "idle", "used", "cloud", "answers", "prompt_tokens", "completion_tokens"):
            differences.compare(f"{name} {day.name} {figure}", reported[figure], true[figure])
        by_key: Counter[str] = Counter()
        for atom in mine:
            by_key[atom.keys["key"]] += atom.figures["used"] + atom.figures["cloud"]
        told_by_key = {row.keys["key"]: row.total_nano for row in report.groups if not row.idle}
        for key in {*by_key, *told_by_key}:
            differences.compare(f"{name} {day.name} key {key!r}", told_by_key.get(key, 0), by_key[key])
    whole = build(ledger, ReportRange(days.first, days.after, "all", zone), _TERMS, now_ms, ("day", "key"))
    for what, amounts in (("the days", added), ("the whole", _amounts(whole))):
        for figure, true_amount in _ledger_sums(file).items():
            differences.compare(f"{name} {what} {figure}", amounts[figure], true_amount)
    _check_currency(differences, whole)


def _amounts(report: Report) -> Counter[str]:
    fixed = report.fixed
    return Counter(
        {
            "billed": fixed.billed_nano,
            "used": fixed.used_nano,
            "idle": fixed.idle_nano,
            "used + idle": fixed.used_nano + fixed.idle_nano,
            "cloud": report.cloud.cost_nano,
            "requests": report.requests,
            "answers": report.served.answers,
            "prompt_tokens": report.served.prompt_tokens,
            "completion_tokens": report.served.completion_tokens,
        }
    )


def _ledger_sums(file: Path) -> dict[str, int]:
    """Return what all rows of the ledger say, without days."""
    answered = "status IN ('ok', 'aborted')"
    columns = {
        "billed": "sum(CASE WHEN kind = 'gpu_hour' OR decision = 'gpu_hour' THEN amount_nano ELSE 0 END)",
        "cloud": "sum(CASE WHEN kind IN ('charged', 'adjusted') AND NOT local THEN amount_nano ELSE 0 END)",
        "requests": "count(DISTINCT CASE WHEN kind = 'charged' THEN request_id END)",
        "answers": f"sum(kind = 'charged' AND {answered})",
        "prompt_tokens": f"sum(CASE WHEN {answered} THEN prompt_tokens ELSE 0 END)",
        "completion_tokens": f"sum(CASE WHEN {answered} THEN completion_tokens ELSE 0 END)",
    }
    named = ", ".join(f"{column} AS '{name}'" for name, column in columns.items())
    (values,) = rows_of(file, f"SELECT {named} FROM entries")
    (holds,) = rows_of(file, "SELECT coalesce(sum(reserved_nano), 0) AS held FROM holds")
    sums = {name: value or 0 for name, value in values.items()}
    return {**sums, "cloud": sums["cloud"] + holds["held"], "used + idle": sums["billed"]}


def _check_currency(differences: _Differences, report: Report) -> None:
    """Compare the amounts that the HTML shows per group with the exact ones, converted and rounded here."""
    parser = Tables()
    parser.feed(report_html(report))
    rows = parser.tables.get(f"By {', '.join(report.by)}", [[]])[1:]
    for cells, row in zip(rows, report.groups, strict=True):
        costs = (row.used_nano, row.idle_nano, row.cloud_nano, row.total_nano)
        for shown, nano in zip(cells[len(report.by) + 1 :], costs, strict=False):
            reported = Decimal(shown.replace("EUR ", "").replace(",", ""))
            exact = Decimal(nano).scaleb(-9) * _RATE
            places = Decimal(1).scaleb(-len(shown.partition(".")[2]))
            true = exact.copy_abs().quantize(places, ROUND_HALF_UP).copy_sign(exact)
            differences.compare(f"EUR of {row.keys}", int(reported.scaleb(9)), int(true.scaleb(9)))
