"""The measurements of reports, in short runs: they notice a nano-dollar or a row that is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from evidence.measures_accounting import USED_PLUS_UNUSED, used_plus_unused
from evidence.measures_groupings import GROUPINGS_UNEQUAL, groupings_unequal
from evidence.measures_report import FIVE_MILLION, MILLION_ROWS, READERS, five_million_rows, million_rows

from evidence import measures_groupings, measures_report
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reports.build import build_report
from spillway_router.ledger.reports.days import GroupKey, ReportRange
from spillway_router.ledger.reports.model import Report
from spillway_router.ledger.reports.terms import ReportTerms


def silent(line: str) -> None:
    """Print nothing."""


def test_nothing_is_lost_or_made_up() -> None:
    measurement = used_plus_unused(silent, books=60)[USED_PLUS_UNUSED]
    assert (measurement.value, measurement.n) == (0, 60)
    assert all(count > 0 for count in measurement.details["books_with"].values()), measurement.details


def test_a_lost_nano_dollar_is_found() -> None:
    """The fault: each report claims a nano-dollar less than was used; then the reports of three days lack three."""

    def faulty(ledger: Ledger, asked: ReportRange, terms: ReportTerms, now_ms: int, by: tuple[GroupKey, ...]) -> Report:
        report = build_report(ledger, asked, terms, now_ms, by)
        used = report.fixed.used_nano
        return replace(report, fixed=replace(report.fixed, used_nano=used - 1)) if used else report

    assert used_plus_unused(silent, books=60, build=faulty)[USED_PLUS_UNUSED].value == 3


def test_every_grouping_tells_what_the_raw_rows_add_up_to() -> None:
    measurement = groupings_unequal(silent, ledgers=2, every=17)[GROUPINGS_UNEQUAL]
    assert measurement.value == 0, measurement.details["first_unequal"]
    assert all(
        measurement.details["figures_by_form"][form] > 1000 for form in ("report", "JSON", "CSV", "HTML", "FOCUS")
    )


def test_a_nano_dollar_in_the_wrong_group_is_found() -> None:
    """The fault: the first two groups exchange a nano-dollar of GPU time, so that every sum is right."""

    def faulty(ledger: Ledger, asked: ReportRange, terms: ReportTerms, now_ms: int, by: tuple[GroupKey, ...]) -> Report:
        report = build_report(ledger, asked, terms, now_ms, by)
        first, second, *others = report.groups
        first = replace(first, used_nano=first.used_nano - 1)
        second = replace(second, used_nano=second.used_nano + 1)
        return replace(report, groups=(first, second, *others))

    measurement = groupings_unequal(silent, ledgers=1, every=100, build=faulty)[GROUPINGS_UNEQUAL]
    assert (measurement.value or 0) >= 2 * measurement.details["groupings"]


@pytest.mark.parametrize(
    ("form", "writer", "right", "wrong"),
    [
        ("CSV", "report_csv", ",no,", ",yes,"),
        ("JSON", "report_json", '"answers": 1', '"answers": 2'),
        ("HTML", "report_html", "</td><td>$0", "</td><td>$1"),
    ],
)
def test_a_wrong_figure_in_one_form_is_found(
    form: str, writer: str, right: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = getattr(measures_groupings, writer)
    monkeypatch.setattr(measures_groupings, writer, lambda report: write(report).replace(right, wrong))
    measurement = groupings_unequal(silent, ledgers=1, every=100)[GROUPINGS_UNEQUAL]
    assert (measurement.value or 0) > 0
    assert all(line.startswith(form) for line in measurement.details["first_unequal"])


def test_a_report_over_many_rows_is_timed() -> None:
    measurement = million_rows(silent, rows=1000, runs=1)[MILLION_ROWS]
    assert measurement.n == 1000
    assert 0 < (measurement.value or 0) < 60
    assert set(measurement.details) == {"summed_us_per_row", "day", "month"}


def test_a_report_over_many_keys_is_timed_and_weighed() -> None:
    measured = five_million_rows(silent, rows=1000, runs=1)
    assert {id: measurement.n for id, measurement in measured.items()} == dict.fromkeys((*FIVE_MILLION, *READERS), 1000)
    assert 0 < (measured["money.report_5m_rows"].value or 0) < 60
    assert 20 < (measured["money.report_5m_rss"].value or 0) < 300


def test_a_report_that_lacks_rows_has_no_time(tmp_path: Path) -> None:
    """The fault: the ledger holds fewer rows than the promise requires."""
    measures_report.fill_ledger(tmp_path / "spillway.db", 2000, measures_report.CASES[0])
    config = tmp_path / "spillway.yaml"
    config.write_text(measures_report._CONFIG.format(file=tmp_path / "spillway.db"), encoding="utf-8")
    with pytest.raises(ValueError, match="2000 requests"):
        measures_report._run(config, measures_report.CASES[0], 3000)
