"""The measurement of Used + Unused = Billed: short here, and it notices a nano-dollar that is lost."""

from __future__ import annotations

from dataclasses import replace

from spillway_router.ledger.base import Ledger
from spillway_router.ledger.report_model import Report
from spillway_router.ledger.report_range import GroupKey, ReportRange
from spillway_router.ledger.reports import Terms, build_report
from tests.evidence.measures_accounting import USED_PLUS_UNUSED, used_plus_unused


def silent(line: str) -> None:
    """Nothing is printed."""


def test_nothing_is_lost_or_made_up() -> None:
    found = used_plus_unused(silent, books=60)[USED_PLUS_UNUSED]
    assert (found.value, found.n) == (0, 60)
    assert all(count > 0 for count in found.details["books_with"].values()), found.details


def test_a_lost_nano_dollar_is_found() -> None:
    """The fault: each report claims a nano-dollar less than was used; three days' reports then lack three."""

    def faulty(ledger: Ledger, asked: ReportRange, terms: Terms, now_ms: int, by: tuple[GroupKey, ...]) -> Report:
        report = build_report(ledger, asked, terms, now_ms, by)
        used = report.fixed.used_nano
        return replace(report, fixed=replace(report.fixed, used_nano=used - 1)) if used else report

    assert used_plus_unused(silent, books=60, build=faulty)[USED_PLUS_UNUSED].value == 3

