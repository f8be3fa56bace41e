"""The sentence that a report begins with on a terminal, in its HTML file and on the Money page: did the GPU pay, and
from which volume would it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from spillway_router.ledger.reports.days import read_zone
from spillway_router.ledger.reports.model import Alternative, GroupRow, Report
from spillway_router.ledger.reports.words import unpriced

Tone = Literal["good", "bad", "plain"]
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """A sentence in three parts, of which the middle one is the answer, and what supports it."""

    before: str
    answer: str
    after: str
    tone: Tone = "plain"
    support: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The whole sentence."""
        return f"{self.before}{self.answer}{self.after}"


def verdict_of(report: Report) -> Verdict:
    """Return whether the GPU paid in the days of a report. One that is grouped by day also counts the days on which it
    did."""
    money = report.amounts.money
    cure: tuple[str, ...]
    if unpriced(report):
        cure = ("Set gpu.price_per_hour, and this report says whether the GPU pays.", unpriced(report))
        return Verdict("Nobody has said ", "what the GPU costs", ".", tone="bad", support=cure)
    if not report.requests and not report.fixed.billed_nano:
        return Verdict("Nothing was asked and nothing was rented in these days.", "", "")
    if not report.fixed.billed_nano:
        return Verdict("No GPU was rented; the cloud cost ", money(report.cloud.cost_nano), ".")
    chosen = compared_with(report)
    if chosen is None:
        cure = ("Configure a cloud backend with a price, and this report says whether the GPU pays.",)
        return Verdict("GPU and cloud cost ", money(report.total_nano), " together.", tone="plain", support=cure)
    support = _support(report, chosen)
    if not chosen.answers:
        rent = money(report.fixed.billed_nano)
        return Verdict("The GPU was rented for ", rent, " and answered nothing.", tone="bad", support=support)
    saved_nano = chosen.savings_nano or 0
    if saved_nano >= 0:
        after = f" against the same work at {chosen.name}."
        return Verdict("The GPU ", f"saved {money(saved_nano)}", after, tone="good", support=support)
    more = f"cost {money(-saved_nano)} more"
    return Verdict("The GPU ", more, f" than the same work at {chosen.name} would have.", tone="bad", support=support)


def compared_with(report: Report) -> Alternative | None:
    """Return the alternative that the report is compared with; None without one."""
    return next((one for one in report.alternatives if one.name == report.against), None)


def requests_per_day(report: Report) -> float:
    """Return the answers per day of the time that has passed."""
    passed_ms = min(report.made_ms, report.end_ms) - report.start_ms
    return report.served.answers * _DAY_MS / passed_ms if passed_ms > 0 else 0.0


def _support(report: Report, chosen: Alternative) -> tuple[str, ...]:
    sentences = (_pays_from(report, chosen), _paying_days(report, chosen), _other(report, chosen))
    return tuple(filter(None, sentences))


def _pays_from(report: Report, chosen: Alternative) -> str:
    point, had = chosen.break_even, requests_per_day(report)
    if point.requests_per_day is None:
        return f"{chosen.name} is free, so no GPU can pay against it." if chosen.answers else ""
    of_that = f" ({had / point.requests_per_day:,.0%} of that)" if point.requests_per_day else ""
    if not point.reachable:
        most = "" if report.capacity_per_day is None else f" at most {report.capacity_per_day:,.0f}"
        return (
            f"It would pay from {_volume(point.requests_per_day)}, which is more than it can answer"
            f"{most and f' ({most.strip()})'}; you had {had:,.0f}{of_that}."
        )
    return f"It pays from {_volume(point.requests_per_day)}; you had {had:,.0f}{of_that}."


def _volume(per_day: float) -> str:
    rounded = f"{per_day:,.0f}"
    if rounded == "0":
        return "the first request on"
    return f"about {rounded} {'request' if rounded == '1' else 'requests'} a day"


def _paying_days(report: Report, chosen: Alternative) -> str:
    """Count the days on which it paid; only where all answers are compared, as the days don't show what is left out."""
    if chosen.answers != report.served.answers or report.by != ("day",):
        return ""
    full = [row for row in report.groups if row.keys["day"] < _made_on(report).isoformat()]
    if len(full) < 2:
        return ""
    paid = sum(saved_on(row) > 0 for row in full)
    return f"It paid on {paid or 'none'} of the {len(full)} full days."


def _made_on(report: Report) -> date:
    return datetime.fromtimestamp(report.made_ms / 1000, read_zone(report.period.timezone)).date()


def saved_on(row: GroupRow) -> int:
    """Return what a day saved against the alternative, in nano-dollars; negative if it cost more."""
    return (row.all_cloud_nano or 0) - (row.used_nano + row.idle_nano + row.cloud_nano)


def _other(report: Report, chosen: Alternative) -> str:
    """Return from when it pays against the priced model that is easiest to beat."""
    others = [
        one for one in report.alternatives if one.name != chosen.name and one.break_even.requests_per_day is not None
    ]
    easiest = min(others, key=lambda one: one.break_even.requests_per_day or 0.0, default=None)
    if easiest is None:
        return ""
    volume = f"{easiest.break_even.requests_per_day:,.0f}"
    volume = "the first request on" if volume == "0" else volume
    return f"Against {easiest.name} it {'pays' if easiest.break_even.reachable else 'would pay'} from {volume}."
