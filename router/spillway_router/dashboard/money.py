"""The Money page as values: the verdict, four cards, a bar per day, who used it, and what is not known for sure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.reports.model import GroupRow, Report
from spillway_router.ledger.reports.rows import ALTERNATIVES_HEAD, alternative_rows
from spillway_router.ledger.reports.verdict import Verdict, compared_with, saved_on, verdict_of
from spillway_router.ledger.reports.words import forecast_words, notes, share

MOST_USERS = 100
REASONS: Mapping[str, str] = {
    "overflow": "the GPU was full or could not serve it (overflow)",
    "escalated": "the local answer was not sure enough (escalated)",
    "fallback": "the GPU was down (fallback)",
    "routed": "a cloud was first choice or was asked for (routed)",
    "pinned": "the request named the backend (pinned)",
    "byok": "the caller brought a key of their own (byok)",
    "referee": "another model judged an answer (referee)",
    "audit": "a local answer was checked (audit)",
    "shadow": "an experiment asked another arm in the shadow (shadow)",
    "bill": "a provider's bill corrected it (bill)",
    "other": "other",
}
"""Why the cloud was asked, by decision."""


@dataclass(frozen=True, slots=True)
class Card:
    """A figure with its name and a note; `tone` colours its mark, empty for none."""

    label: str
    value: str
    note: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class DayRow:
    """One day: its cost on both sides, what it would have cost at the alternative, and the difference in words."""

    day: str
    answers: str
    used: str
    idle: str
    cloud: str
    total: str
    instead: str
    outcome: str
    tone: str


@dataclass(frozen=True, slots=True)
class UserRow:
    """What one API key used: its requests, the share that the GPU answered, its cloud cost, its share of the rent, and
    both together."""

    name: str
    answers: str
    local: str
    cloud: str
    rent: str
    total: str


@dataclass(frozen=True, slots=True)
class Money:
    """Everything on the Money page, in words and figures for people."""

    verdict: Verdict
    against: str
    choices: tuple[str, ...]
    cards: tuple[Card, ...]
    chart: Mapping[str, Any]
    days: tuple[DayRow, ...]
    users: tuple[UserRow, ...]
    idle_apart: bool
    reasons: tuple[tuple[str, str, str, str], ...]
    unsure: tuple[str, ...]
    alternatives_head: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]
    forecast: str
    notes: tuple[str, ...]
    is_empty: bool


def money_page(by_day: Report, by_key: Report, today: date, *, idle_apart: bool = False) -> Money:
    """Return the page of a report by day and of the same days by key and backend. Of reports that are grouped otherwise
    it has no figure, and no table of users."""
    chosen = compared_with(by_day)
    days = tuple(_day_row(row, by_day) for row in by_day.groups) if by_day.by == ("day",) else ()
    return Money(
        verdict=verdict_of(by_day),
        against="" if chosen is None else chosen.name,
        choices=tuple(one.name for one in by_day.alternatives),
        cards=_cards(by_day, today),
        chart=_chart(by_day) if days else {},
        days=days,
        users=_users(by_key, idle_apart=idle_apart) if by_key.by == ("key", "backend") else (),
        idle_apart=idle_apart,
        reasons=_reasons(by_day),
        unsure=_unsure(by_day),
        alternatives_head=ALTERNATIVES_HEAD,
        alternatives=tuple(alternative_rows(by_day)),
        forecast="" if by_day.forecast is None else forecast_words(by_day.forecast, by_day.amounts),
        notes=tuple(notes(by_day)),
        is_empty=not by_day.requests and not by_day.fixed.billed_nano,
    )


def _cards(report: Report, today: date) -> tuple[Card, ...]:
    money, or_dash = report.amounts.money, report.amounts.or_dash
    cloud, units = report.cloud, report.units
    documents = f", {or_dash(units.per_document_nano)} per document" if report.served.documents else ""
    each = f"{or_dash(units.per_request_nano)} per request{documents}"
    last = _forecast_card(report, today) or _instead_card(report)
    return (
        _rent_card(report),
        Card("Cloud, per request", money(cloud.cost_nano), _cloud_note(report), "cloud"),
        Card("Together", money(report.total_nano), each if report.served.answers else "no request was answered"),
        *last,
    )


def _rent_card(report: Report) -> Card:
    fixed, heading = report.fixed, "GPU rent, fixed"
    if report.unpriced_gpu_hours and not fixed.billed_nano:
        return Card(heading, "unknown", f"{fixed.gpu_hours:,.0f} h, and nobody said at which price", "used")
    rent = f"{fixed.gpu_hours:,.0f} h at ${fixed.price_per_hour_usd}; {fixed.utilisation:.1%} of its capacity used"
    return Card(
        heading, report.amounts.money(fixed.billed_nano), rent if fixed.gpu_hours else "nothing was rented", "used"
    )


def _cloud_note(report: Report) -> str:
    cloud = report.cloud
    if not cloud.cost_nano:
        return "nothing left the GPU" if report.served.answers else "nothing was sent there"
    most = max(cloud.rows, key=lambda row: row.cost_nano)
    text = f"{share(most.cost_nano, cloud.cost_nano)} of it {most.decision}"
    row = report.forecast
    if row is None or not row.budget_nano or report.period.first[:7] != row.month:
        return text
    return (
        f"{row.cloud_so_far_nano / row.budget_nano:.0%} of the month's {report.amounts.money(row.budget_nano)}; {text}"
    )


def _forecast_card(report: Report, today: date) -> tuple[Card, ...]:
    row = report.forecast
    if row is None or not report.period.first <= today.isoformat() < report.period.after:
        return ()
    money = report.amounts.money
    parts = f"GPU {money(row.fixed_nano)} + cloud {money(row.cloud_nano)}"
    return (Card("Whole month, forecast", money(row.total_nano), parts),)


def _instead_card(report: Report) -> tuple[Card, ...]:
    chosen = compared_with(report)
    if chosen is None:
        return ()
    left_out = report.served.answers - chosen.answers
    text = f"{chosen.answers:,} answers that it could have given" if left_out else "all answers of these days there"
    return (Card(f"All at {chosen.name}", report.amounts.money(chosen.all_cloud_nano), text),)


def _chart(report: Report) -> Mapping[str, Any]:
    def dollars(nano: int | None) -> float | None:
        return None if nano is None else round(nano / NANO, 6)

    rows = report.groups
    series: list[dict[str, Any]] = [
        {"name": "GPU used", "kind": "bar", "tone": "used", "values": [dollars(row.used_nano) for row in rows]},
        {"name": "GPU idle", "kind": "bar", "tone": "idle", "values": [dollars(row.idle_nano) for row in rows]},
        {"name": "cloud", "kind": "bar", "tone": "cloud", "values": [dollars(row.cloud_nano) for row in rows]},
    ]
    if report.against is not None:
        instead = [dollars(row.all_cloud_nano) for row in rows]
        series.append({"name": f"all at {report.against}", "kind": "step", "tone": "against", "values": instead})
    return {"x": [_short_day(row.keys["day"]) for row in rows], "unit": "$", "series": series}


def _short_day(day: str) -> str:
    of = date.fromisoformat(day)
    return f"{of.day} {of:%b}"


def _day_row(row: GroupRow, report: Report) -> DayRow:
    money = report.amounts.money
    saved_nano = saved_on(row)
    is_known = row.all_cloud_nano is not None and not report.unpriced_gpu_hours
    outcome = f"saved {money(saved_nano)}" if saved_nano >= 0 else f"cost {money(-saved_nano)} more"
    return DayRow(
        day=row.keys["day"],
        answers=f"{row.served.answers:,}",
        used=money(row.used_nano),
        idle=money(row.idle_nano),
        cloud=money(row.cloud_nano),
        total=money(row.total_nano),
        instead=report.amounts.or_dash(row.all_cloud_nano),
        outcome=outcome if is_known else "-",
        tone="" if not is_known else "good" if saved_nano >= 0 else "bad",
    )


@dataclass(slots=True)
class _Used:
    answers: int = 0
    local: int = 0
    cloud_nano: int = 0
    rent_nano: int = 0

    @property
    def total_nano(self) -> int:
        return self.cloud_nano + self.rent_nano


def _users(report: Report, *, idle_apart: bool) -> tuple[UserRow, ...]:
    """Return the keys, dearest first; then what is shared by nobody: idle time where it stands apart, or of days
    without work."""
    here = {row.backend for row in report.fixed.rows}
    names: dict[str, str] = {}
    used: defaultdict[str, _Used] = defaultdict(_Used)
    shared_nano = 0
    for row in report.groups:
        if row.idle or row.other:
            continue
        key_id = row.keys["key"]
        names[key_id] = row.labels.get("key") or key_id or "without a key"
        one = used[key_id]
        one.answers += row.served.answers
        one.local += row.served.answers if row.keys["backend"] in here else 0
        one.cloud_nano += row.cloud_nano
        one.rent_nano += row.used_nano + (0 if idle_apart else row.idle_share_nano)
        shared_nano += 0 if idle_apart else row.idle_share_nano
    ranked = sorted(used.items(), key=lambda item: (-item[1].total_nano, names[item[0]]))
    rows = [_user_row(names[key_id], one, report) for key_id, one in ranked[:MOST_USERS]]
    if ranked[MOST_USERS:]:
        rest = [one for _, one in ranked[MOST_USERS:]]
        whole = _Used(
            answers=sum(one.answers for one in rest),
            local=sum(one.local for one in rest),
            cloud_nano=sum(one.cloud_nano for one in rest),
            rent_nano=sum(one.rent_nano for one in rest),
        )
        rows.append(_user_row(f"{len(rest):,} other keys", whole, report))
    left_nano = report.fixed.idle_nano - shared_nano
    if left_nano:
        name = "idle GPU time" if idle_apart else "idle GPU time of days without work"
        rows.append(_user_row(name, _Used(rent_nano=left_nano), report))
    return tuple(rows)


def _user_row(name: str, used: _Used, report: Report) -> UserRow:
    money = report.amounts.money
    return UserRow(
        name=name,
        answers=f"{used.answers:,}",
        local=share(used.local, used.answers),
        cloud=money(used.cloud_nano),
        rent=money(used.rent_nano),
        total=money(used.total_nano),
    )


def _reasons(report: Report) -> tuple[tuple[str, str, str, str], ...]:
    money, or_dash = report.amounts.money, report.amounts.or_dash
    return tuple(
        (REASONS[row.decision], f"{row.served.answers:,}", money(row.cost_nano), or_dash(row.per_answer_nano))
        for row in report.cloud.rows
        if row.served.attempts or row.cost_nano
    )


def _unsure(report: Report) -> tuple[str, ...]:
    """Return what of the cloud's cost is an estimate or a bound, one sentence each."""
    money, cloud = report.amounts.money, report.cloud
    texts = []
    if cloud.unsure:
        calls = "call has" if cloud.unsure == 1 else "calls have"
        texts.append(
            f"{cloud.unsure:,} {calls} no known cost: at most {money(cloud.at_most_nano)}, estimated "
            f"{money(cloud.estimated_nano)}, which is in the sums above."
        )
    if cloud.unsettled:
        calls = "call is" if cloud.unsettled == 1 else "calls are"
        texts.append(
            f"{cloud.unsettled:,} {calls} in progress, or lost in a crash: counted as the most that they can cost, "
            f"{money(cloud.unsettled_nano)}."
        )
    return tuple(texts)
