"""The measurement of local days, in a short run, and the faults that it must find."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import pytest
from evidence.measures_timezones import TIMEZONE_SUMS, timezone_sums

from evidence import measures_timezones
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GroupKey, ReportRange
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms


def silent(line: str) -> None:
    """Print nothing."""


def test_local_days_add_up_to_the_ledger() -> None:
    measurement = timezone_sums(silent, ledgers=2)[TIMEZONE_SUMS]
    assert measurement.value == 0, measurement.details["first_differences"]
    assert measurement.n > 2000


def test_days_of_another_zone_are_found() -> None:
    """The fault: reports take UTC's days for those of the zone, which add up to the same."""

    def faulty(ledger: Ledger, asked: ReportRange, terms: ReportTerms, now_ms: int, by: tuple[GroupKey, ...]) -> Report:
        return build_report(ledger, replace(asked, zone=UTC), terms, now_ms, by)

    measurement = timezone_sums(silent, ledgers=1, build=faulty)[TIMEZONE_SUMS]
    assert (measurement.value or 0) > 10**6
    assert not any("the days billed" in line for line in measurement.details["first_differences"])


def test_a_wrong_rate_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the HTML shows dollars with the name of another currency."""
    write = measures_timezones.report_html
    wrong = replace(measures_timezones._TERMS.currency, per_usd="1")  # type: ignore[type-var]  # it has one
    monkeypatch.setattr(measures_timezones, "report_html", lambda report: write(replace(report, currency=wrong)))
    assert (timezone_sums(silent, ledgers=1)[TIMEZONE_SUMS].value or 0) > 10**6
