"""A report's cost by day, month, backend, provider, model, key, tier, task or decision, alone or combined.

Every nano-dollar of the report is in exactly one group. Used GPU time and charges are in the group of their attempts.
Idle time is in the group of its day or month, or in a row of its own if the grouping has other keys than these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from spillway_router.core.money.tariff import Tariff, price_many
from spillway_router.ledger.calendar import day_of
from spillway_router.ledger.entries import ANSWERED, Entry
from spillway_router.ledger.records import Total
from spillway_router.ledger.rentals.fixed_cost import CostLine, FixedDay
from spillway_router.ledger.reports.days import GroupKey
from spillway_router.ledger.reports.model import GroupRow, UnitCosts, WorkDone

_TIMES = frozenset[GroupKey](("day", "month"))
_OF_ENTRY: dict[GroupKey, Callable[[Entry | Total], str]] = {
    "backend": lambda row: row.backend,
    "provider": lambda row: row.provider,
    "model": lambda row: row.model,
    "key": lambda row: row.key_id,
    "tier": lambda row: row.tier,
    "task": lambda row: row.task,
    "decision": lambda row: row.decision,
}


@dataclass(frozen=True, slots=True)
class Costs:
    """All costs of a report: attempts with their share of the GPUs, days with their idle time, and open holds; also the
    tariff of the cheapest alternative, and the names of API keys by their ids."""

    lines: Sequence[CostLine]
    days: Sequence[FixedDay]
    holds: Sequence[Entry]
    cheapest: Tariff | None
    key_names: Mapping[str, str]


@dataclass(slots=True)
class _GroupSums:
    totals: list[Total] = field(default_factory=list)
    used_nano: int = 0
    idle_nano: int = 0
    cloud_nano: int = 0
    document_nano: int = 0


def group_rows(costs: Costs, by: tuple[GroupKey, ...]) -> tuple[GroupRow, ...]:
    """Return the groups in the order of their keys, with idle rows last."""
    groups: dict[tuple[bool, tuple[str, ...]], _GroupSums] = defaultdict(_GroupSums)
    for line in costs.lines:
        total = line.total
        group = groups[False, tuple(_key(key, total.day, total) for key in by)]
        group.totals.append(total)
        group.used_nano += line.used_nano
        group.cloud_nano += 0 if total.local else total.cost_nano
        if total.document:
            group.document_nano += line.used_nano + (0 if total.local else total.cost_nano)
    for hold in costs.holds:
        groups[False, tuple(_key(key, day_of(hold.ts), hold) for key in by)].cloud_nano += hold.reserved_nano
    apart = not _TIMES.issuperset(by)
    for day in costs.days:
        if day.split.idle_nano or not apart:
            groups[apart, tuple(_key(key, day.day, None) for key in by)].idle_nano += day.split.idle_nano
    return tuple(
        _row(dict(zip(by, values, strict=True)), idle, groups[idle, values], costs) for idle, values in sorted(groups)
    )


def _key(key: GroupKey, day: str, row: Entry | Total | None) -> str:
    if key in _TIMES:
        return day if key == "day" else day[:7]
    return "" if row is None else _OF_ENTRY[key](row)


def _row(keys: Mapping[str, str], idle: bool, sums: _GroupSums, costs: Costs) -> GroupRow:
    served = served_of(sums.totals)
    total_nano = sums.used_nano + sums.idle_nano + sums.cloud_nano
    all_cloud_nano = None
    if costs.cheapest is not None:
        all_cloud_nano = price_many(
            uncached_tokens=served.prompt_tokens,
            cached_tokens=0,
            completion_tokens=served.completion_tokens,
            requests=served.answers,
            tariff=costs.cheapest,
        )
    name = costs.key_names.get(keys.get("key", ""))
    return GroupRow(
        keys=keys,
        labels={} if name is None else {"key": name},
        idle=idle,
        served=served,
        used_nano=sums.used_nano,
        idle_nano=sums.idle_nano,
        cloud_nano=sums.cloud_nano,
        total_nano=total_nano,
        units=units_of(total_nano, served, sums.document_nano),
        all_cloud_nano=all_cloud_nano,
    )


def served_of(totals: Sequence[Total]) -> WorkDone:
    """Return the work done by some groups of attempts."""
    answered = [total for total in totals if total.status in ANSWERED]
    return WorkDone(
        attempts=sum(total.attempts for total in totals),
        answers=sum(total.requests for total in answered),
        documents=sum(total.requests for total in answered if total.document),
        prompt_tokens=sum(total.prompt_tokens for total in answered),
        completion_tokens=sum(total.completion_tokens for total in answered),
    )


def units_of(cost_nano: int, served: WorkDone, document_nano: int) -> UnitCosts:
    """Return the cost per answered request, per 1,000 tokens and per document."""
    tokens = served.prompt_tokens + served.completion_tokens
    return UnitCosts(
        per(cost_nano, served.answers), per(cost_nano * 1000, tokens), per(document_nano, served.documents)
    )


def per(nano: int, count: int) -> int | None:
    """Return the nano-dollars per unit, rounded half up; None if there are no units."""
    return (2 * nano + count) // (2 * count) if count else None
