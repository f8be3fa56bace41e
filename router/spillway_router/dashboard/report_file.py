"""The report as one HTML file: the Money page and every further table, with nothing to fetch from anywhere.

Its figure is drawn by the dashboard's own script, which is in the file. Where nobody runs scripts, as in a mail, it is
made without, and the same numbers stand in an open table. Every text from the ledger or the configuration is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from markupsafe import Markup

from spillway_router.dashboard.money import money_page
from spillway_router.dashboard.pages import STATIC, Pages
from spillway_router.ledger.reports.days import read_zone
from spillway_router.ledger.reports.rows import (
    CLOUD_HEAD,
    CREDITS_HEAD,
    FEEDBACK_HEAD,
    GROUP_HEAD,
    OTHER_HEAD,
    PRESSED_HEAD,
    STEPS_HEAD,
    UNITS_HEAD,
    cloud_rows,
    credit_rows,
    feedback_rows,
    group_row,
    other_rows,
    pressed_rows,
    step_rows,
    unit_rows,
)
from spillway_router.ledger.reports.words import moment, rental_name, title, unpriced

if TYPE_CHECKING:
    from spillway_router.ledger.reports.model import Report

_FIXED_HEAD = ("rented GPU", "amount", "cost")


@dataclass(frozen=True, slots=True)
class Breakdown:
    """A report by day, and one of the same days by key and backend: what the figure and the table of users show."""

    by_day: Report
    by_key: Report


@dataclass(frozen=True, slots=True)
class Section:
    """A table with its heading; its first `words` columns are text."""

    heading: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


def report_html(report: Report, breakdown: Breakdown | None = None, *, draws: bool = True) -> str:
    """Return a report as a complete HTML document. With `draws` it has the script that draws its figure (570 kB)."""
    by_day = report if breakdown is None else breakdown.by_day
    zone = read_zone(report.period.timezone)
    today = datetime.fromtimestamp(report.made_ms / 1000, zone).date()
    page = money_page(by_day, report if breakdown is None else breakdown.by_key, today)
    warning = unpriced(report)
    draws = draws and bool(page.days)
    values = {
        "title": title(report),
        "page": page,
        "users": [(row.name, row.answers, row.local, row.cloud, row.rent, row.total) for row in page.users],
        "window": None,
        "draws": draws,
        "support": [sentence for sentence in page.verdict.support if sentence != warning],
        "warning": warning,
        "groups": _groups(report),
        "parts": _sections(report),
        "created": moment(report.made_ms, zone),
        "in_dollars": report.currency is None,
        "style": _static("app.css"),
        "script": _static("charts.js") if draws else "",
    }
    return Pages().render("report.html", values)


def _static(name: str) -> Markup:
    return Markup((STATIC / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _groups(report: Report) -> Section | None:
    if not report.groups:
        return None
    rows = [group_row(row, report.by, report.amounts) for row in report.groups]
    return Section(f"By {', '.join(report.by)}", (*report.by, *GROUP_HEAD), rows, words=len(report.by))


def _sections(report: Report) -> list[Section]:
    """Return the tables that the Money page does not have; those without rows are left out."""
    sections = (
        Section("Fixed: rented GPU", _FIXED_HEAD, _fixed_rows(report)),
        Section("Per request: cloud", CLOUD_HEAD, cloud_rows(report)),
        Section("Other fixed costs", OTHER_HEAD, other_rows(report) if report.other.rows else ()),
        Section("Steps of documents", STEPS_HEAD, step_rows(report) if report.steps else ()),
        Section("Cost per unit", UNITS_HEAD, unit_rows(report)),
        Section("Who asked for better answers", PRESSED_HEAD, pressed_rows(report)),
        Section("Requests and better answers that are counted", CREDITS_HEAD, credit_rows(report)),
        Section("What people thought of the answers", FEEDBACK_HEAD, feedback_rows(report)),
    )
    return [section for section in sections if section.rows]


def _fixed_rows(report: Report) -> list[tuple[str, str, str]]:
    fixed, money = report.fixed, report.amounts.money
    rows = [("price", f"${fixed.price_per_hour_usd} per GPU-hour x {fixed.gpus}", "")]
    rows += [
        (rental_name(rental), f"{rental.gpu_hours:,.3f} GPU-hours", money(rental.billed_nano))
        for rental in fixed.rentals
    ]
    rows += [
        ("billed", f"{fixed.gpu_hours:,.3f} GPU-hours", money(fixed.billed_nano)),
        ("used", f"{fixed.utilisation:.1%}", money(fixed.used_nano)),
        ("idle", f"{1 - fixed.utilisation:.1%}", money(fixed.idle_nano)),
    ]
    rows += [
        (
            f"{row.backend} ({row.model})",
            f"{row.served.answers:,} answers, {row.gpu_seconds:,.1f} GPU-s",
            money(row.used_nano),
        )
        for row in fixed.rows
    ]
    return rows
