"""The morning report: what the day before cost, as a sentence, a text, a mail and the whole report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from spillway_router.core.money.tariff import usd
from spillway_router.dashboard.report_file import Breakdown, report_html
from spillway_router.ledger.reports.verdict import verdict_of
from spillway_router.ledger.reports.words import title

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway_router.ledger.reports.model import Report


@dataclass(frozen=True, slots=True)
class Letter:
    """One morning report about `day` (ISO). `html` is for mails, `attachment` the whole report with its figure, and
    `values` the JSON object for a webhook."""

    day: str
    subject: str
    text: str
    html: str
    attachment: str
    values: Mapping[str, Any]


def letter_of(day: Breakdown, month: Report) -> Letter:
    """Return the letter about a day, from its reports and that of its month so far, by day."""
    report = day.by_day
    verdict, of_month = verdict_of(report), verdict_of(month)
    first = date.fromisoformat(report.period.first)
    so_far = f"{first:%B} so far: {of_month.sentence}"
    text = "\n\n".join(filter(None, (verdict.sentence, " ".join(verdict.support), so_far, title(report))))
    html = report_html(report, day, draws=False)
    day_words = f"{first.day} {first:%B %Y}"
    values = {
        "type": "morning_report",
        "text": f"Spillway, {day_words}: {verdict.sentence} {so_far}",
        "day": report.period.first,
        "verdict": verdict.sentence,
        "support": verdict.support,
        "month_verdict": of_month.sentence,
        "requests": report.requests,
        "answers": report.served.answers,
        "gpu_usd": None if report.unpriced_gpu_hours else usd(report.fixed.billed_nano),
        "cloud_usd": usd(report.cloud.cost_nano),
        "total_usd": None if report.unpriced_gpu_hours else usd(report.total_nano),
        "html": html,
    }
    return Letter(
        day=report.period.first,
        subject=f"{verdict.sentence.rstrip('.')} ({day_words})",
        text=f"{text}\n",
        html=html,
        attachment=report_html(report, day),
        values=values,
    )
