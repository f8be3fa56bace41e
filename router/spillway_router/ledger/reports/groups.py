"""A report's cost by day, month, backend, provider, model, key, tier, task or decision, alone or combined.

Every nano-dollar of the report is in exactly one group. Used GPU time and charges are in the group of their attempts.
Idle time and other fixed costs are in the group of their day or month, or each in a row of its own if the grouping has
other keys than these. The costs of a request, of 1,000 tokens and of a document include idle time and no other fixed
cost in every group, as in the report.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from functools import cache, partial

from spillway_router.core.money.alternatives import Sizes
from spillway_router.core.money.tariff import half_up
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Sums
from spillway_router.ledger.records import Group, Total
from spillway_router.ledger.rentals.fixed_cost import CostLine, FixedDay, shared
from spillway_router.ledger.reports.days import GroupKey, RangeError, ReportRange
from spillway_router.ledger.reports.instead import GroupsInstead, sizes_of
from spillway_router.ledger.reports.model import GroupRow, UnitCosts, WorkDone

_TIMES = frozenset[GroupKey](("day", "month"))


@dataclass(frozen=True, slots=True)
class Costs:
    """All costs of a report: attempts with their share of the GPUs, days with their idle time, and open holds; also the
    costs at the alternative that groups are compared with, and the names of API keys by their ids."""

    lines: Sequence[CostLine]
    days: Sequence[FixedDay]
    holds: Sequence[Entry]
    instead: GroupsInstead | None
    key_names: Mapping[str, str]
    other: Mapping[str, int] = field(default_factory=dict)
    """Other fixed costs per day, in nano-dollars."""


@dataclass(slots=True)
class _GroupSums:
    attempts: int = 0
    answers: int = 0
    documents: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    used_nano: int = 0
    idle_nano: int = 0
    cloud_nano: int = 0
    unsure: int = 0
    estimated_nano: int = 0
    at_most_nano: int = 0
    other_nano: int = 0
    spread_nano: int = 0
    """The share of the days' idle time, by work."""
    document_nano: int = 0
    """The cost of the documents, their share of idle time included."""
    instead: Fraction | None = None
    """The cost at the cheapest alternative, None if it could have given no answer."""
    plain: dict[Fraction, Sizes] | None = None
    """What of that cost is a share of what the same answers would cost at its plain price: by the share."""

    def add(self, total: Total) -> None:
        """Add the work and the charges of a total."""
        group = total.group
        self.attempts += total.attempts
        if group.answers:
            self.answers += total.answers
            self.documents += total.answers if group.document else 0
            self.prompt_tokens += total.prompt_tokens
            self.completion_tokens += total.completion_tokens
        if not group.local:
            self.cloud_nano += total.cost_nano
            self.unsure += total.unsure
            self.estimated_nano += total.estimated_nano
            self.at_most_nano += total.at_most_nano
            self.document_nano += total.cost_nano if group.document else 0

    def use(self, used_nano: int, idle_nano: int, document: bool) -> None:
        """Add a share of the used and of the idle GPU time."""
        self.used_nano += used_nano
        self.spread_nano += idle_nano
        self.document_nano += used_nano + idle_nano if document else 0

    def compare(self, cost: Fraction | None) -> None:
        """Add what answers would have cost at the cheapest alternative, None if it could not have given them."""
        if cost is not None:
            self.instead = cost if self.instead is None else self.instead + cost

    def compare_by_share(self, share: Fraction, total: Total) -> None:
        """Add that answers of an API key would have cost so much of their plain price at the cheapest alternative."""
        if self.plain is None:
            self.plain = {}
        if total.group.answers:
            answers, prompt, completion = self.plain.get(share, (0, 0, 0))
            self.plain[share] = Sizes(
                answers + total.answers, prompt + total.prompt_tokens, completion + total.completion_tokens
            )

    def instead_at(self, instead: GroupsInstead) -> int | None:
        """Return the cost at the cheapest alternative in nano-dollars, None if it could have given no answer."""
        cost = self.instead
        for share, sizes in (self.plain or {}).items():
            cost = (cost or Fraction()) + share * instead.plain(sizes)
        return None if cost is None else half_up(cost)

    @property
    def served(self) -> WorkDone:
        """The work done."""
        return WorkDone(
            attempts=self.attempts,
            answers=self.answers,
            documents=self.documents,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
        )


_ATTEMPTS, _IDLE, _OTHER = 0, 1, 2
"""What a row is about: attempts (and, by day or month, all that belongs to it), idle time, other fixed costs."""

_Groups = dict[tuple[int, tuple[str, ...]], _GroupSums]
"""The sums of each group, by what it is about, and by its key values."""


def group_rows(
    costs: Costs, by: tuple[GroupKey, ...], sums: Sums, days: ReportRange, *, most_groups: int | None = None
) -> tuple[GroupRow, ...]:
    """Return the groups in the order of their keys, with idle rows last.

    Raises RangeError as soon as there are more than `most_groups`.
    """

    def new_group() -> _GroupSums:
        if most_groups is not None and len(groups) >= most_groups:
            raise RangeError(
                "by",
                f"by {','.join(by)} makes more than {most_groups:,} groups here; ask for fewer days or keys, or run "
                "`spillway report`",
            )
        return _GroupSums()

    groups: _Groups = defaultdict(new_group)
    if "key" in by:
        _add_by_key(groups, costs, by, sums, days)
    else:
        for line in costs.lines:
            sums_of = groups[_ATTEMPTS, _values(by, line.total.day, line.total.group, "")]
            sums_of.add(line.total)
            sums_of.use(line.used_nano, line.idle_nano, line.total.group.document)
            if costs.instead is not None:
                sums_of.compare(costs.instead.costs.get((line.total.day, line.total.group)))
    calendar = days.calendar
    for hold in costs.holds:
        groups[_ATTEMPTS, _values(by, calendar.name_at(hold.ts), hold, hold.key_id)].cloud_nano += hold.reserved_nano
    apart = not _TIMES.issuperset(by)
    for day in costs.days:
        if day.split.idle_nano or not apart:
            groups[_IDLE if apart else _ATTEMPTS, _values(by, day.day, None, "")].idle_nano += day.split.idle_nano
    for of_day, other_nano in costs.other.items():
        if other_nano:
            groups[_OTHER if apart else _ATTEMPTS, _values(by, of_day, None, "")].other_nano += other_nano
    rows = ((about, values, groups[about, values]) for about, values in sorted(groups))
    return tuple(_row(dict(zip(by, values, strict=True)), about, of_row, costs) for about, values, of_row in rows)


def _add_by_key(groups: _Groups, costs: Costs, by: tuple[GroupKey, ...], sums: Sums, days: ReportRange) -> None:
    """Add the work, the charges and the used GPU time of each API key.

    There may be very many keys, so their sums are read part by part (per day or month where that is asked), and their
    work as a stream.
    """
    at = by.index("key")
    places = {(line.total.day, line.total.group): line.total for line in costs.lines}
    for day, start_ms, end_ms in _parts(by, days):
        values_of = cache(partial(_values, by, day, key_id=""))
        share_of = cache(partial(_instead_per_plain, costs.instead, places, days.calendar.between(start_ms, end_ms)))
        for total in sums.key_totals(start_ms, end_ms):
            values = values_of(total.group)
            sums_of = groups[_ATTEMPTS, (*values[:at], total.key_id, *values[at + 1 :])]
            sums_of.add(total)
            share = share_of(total.group)
            if share is not None:
                sums_of.compare_by_share(share, total)
    lines = {(line.total.day, line.total.group): line for line in costs.lines}
    for work in sums.key_work(days.calendar):
        line = lines[work.day, work.group]
        if not line.used_nano and not line.idle_nano:
            continue
        values = _values(by, work.day, work.group, "")
        before, after, document = values[:at], values[at + 1 :], work.group.document
        shares_us = [share for _, share in work.shares_us]
        whole_us = sum(max(0, share) for share in shares_us)
        used, idle = shared(line.used_nano, shares_us, whole_us), shared(line.idle_nano, shares_us, whole_us)
        for (key_id, _), used_nano, idle_nano in zip(work.shares_us, used, idle, strict=True):
            groups[_ATTEMPTS, (*before, key_id, *after)].use(used_nano, idle_nano, document)


def _instead_per_plain(
    instead: GroupsInstead | None,
    totals: Mapping[tuple[str, Group], Total],
    days: frozenset[str],
    group: Group,
) -> Fraction | None:
    """Return what some days' answers of a group would have cost at the cheapest alternative, per what they would cost
    at its plain price; None if it could have given none."""
    if instead is None:
        return None
    costs = [cost for day in days if (cost := instead.costs.get((day, group))) is not None]
    if not costs:
        return None
    plain = sum((instead.plain(sizes_of(totals[day, group])) for day in days if (day, group) in totals), Fraction())
    return sum(costs, Fraction()) / plain if plain else Fraction()


def _parts(by: tuple[GroupKey, ...], days: ReportRange) -> Iterator[tuple[str, int, int]]:
    """Yield the parts of the range that the grouping tells apart: a day of each part, and its ends in epoch ms."""
    day = days.first
    while day < days.after:
        after = days.after
        if "day" in by:
            after = day + timedelta(days=1)
        elif "month" in by:
            after = min(after, (day.replace(day=1) + timedelta(days=32)).replace(day=1))
        yield day.isoformat(), start_of(day, days.zone), start_of(after, days.zone)
        day = after


def _values(by: tuple[GroupKey, ...], day: str, row: Group | Entry | None, key_id: str) -> tuple[str, ...]:
    """Return the values of the keys of a grouping; `row` is None for idle time, which belongs to no backend."""
    values = []
    for key in by:
        if key == "day":
            values.append(day)
        elif key == "month":
            values.append(day[:7])
        elif key == "key":
            values.append(key_id)
        else:
            values.append("" if row is None else getattr(row, key))
    return tuple(values)


def _row(keys: Mapping[str, str], about: int, sums: _GroupSums, costs: Costs) -> GroupRow:
    served = sums.served
    request_nano = sums.used_nano + sums.idle_nano + sums.cloud_nano
    all_cloud_nano = None
    if costs.instead is not None:
        instead = sums.instead_at(costs.instead)
        all_cloud_nano = 0 if instead is None and not served.answers else instead
    name = costs.key_names.get(keys.get("key", ""))
    return GroupRow(
        keys=keys,
        labels={} if name is None else {"key": name},
        idle=about == _IDLE,
        served=served,
        used_nano=sums.used_nano,
        idle_nano=sums.idle_nano,
        cloud_nano=sums.cloud_nano,
        total_nano=request_nano + sums.other_nano,
        # Groups of days and months contain their idle time; the others get their share of it, and both mean the same.
        units=units_of(request_nano if sums.idle_nano else request_nano + sums.spread_nano, served, sums.document_nano),
        all_cloud_nano=all_cloud_nano,
        other=about == _OTHER,
        other_nano=sums.other_nano,
        unsure=sums.unsure,
        estimated_nano=sums.estimated_nano,
        at_most_nano=sums.at_most_nano,
        idle_share_nano=sums.spread_nano,
    )


def served_of(totals: Sequence[Total]) -> WorkDone:
    """Return the work done by some groups of attempts."""
    sums = _GroupSums()
    for total in totals:
        sums.add(total)
    return sums.served


def units_of(cost_nano: int, served: WorkDone, document_nano: int) -> UnitCosts:
    """Return the cost per answered request, per 1,000 tokens and per document."""
    tokens = served.prompt_tokens + served.completion_tokens
    return UnitCosts(
        per(cost_nano, served.answers), per(cost_nano * 1000, tokens), per(document_nano, served.documents)
    )


def per(nano: int, count: int) -> int | None:
    """Return the nano-dollars per unit, rounded half up; None if there are no units."""
    return (2 * nano + count) // (2 * count) if count else None
