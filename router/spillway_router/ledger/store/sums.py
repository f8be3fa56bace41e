"""Running sums: what makes a report over millions of rows fast.

The rows of the ledger are never changed, and their `seq` only grows. "All rows up to seq n" is therefore a fixed set,
and its sums never change either. The database keeps them beside the rows, with the n up to which they go:

    sum_groups   the groups (records.Group) that ever occurred, numbered
    slot_sums    per quarter of an hour and group: what reports without API keys read
    key_sums     per UTC day, group and API key

`Ledger.sum_up` adds the next rows and moves n in one transaction. A process that dies in between has changed nothing,
and two that do it at once wait for each other. Reports read the sums and, in the same snapshot, the few rows after n.
A ledger that nobody has summed up yet is read row by row. So the sums can only be late, never wrong, and
`spillway ledger verify` compares them with the rows.

The writer doesn't keep them. That would make every row's commit dearer (a local row is one statement today), whereas
a few thousand rows at a time cost about a microsecond of the database's time each, outside of the interpreter's lock.

A row counts in the quarter of an hour of its attempt's hold, or of its own `ts` without one, as it does in balances
(posting.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from typing import Any

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import ANSWERED
from spillway_router.ledger.interface import Sums
from spillway_router.ledger.records import Group, KeyWork, Total

SLOT_MS = 900_000
SLOTS_PER_DAY = DAY_MS // SLOT_MS
GROUP = ", ".join(Group._fields)
SUMS = tuple(f.name for f in fields(Total))[3:]
"""Names of a total's sums."""
SAME_GROUP = " AND ".join(f"known.{name} = row.{name}" for name in Group._fields)
ADDED = ", ".join(f"sum({name})" for name in SUMS)
MOST_COUNTED = 1 << 24
"""More tokens than any model reads; the product of two token counts is capped there, so that it fits 64 bits."""

_ANSWERED = ", ".join(f"'{status}'" for status in ANSWERED)
_FIRST = (
    "NOT EXISTS (SELECT 1 FROM entries AS earlier WHERE earlier.request_id = row.request_id"
    " AND earlier.kind = 'charged' AND earlier.seq < row.seq)"
)
BOOKED_MS = (
    "CASE WHEN row.local AND row.tariff_ref = '' THEN row.ts ELSE coalesce((SELECT hold.ts FROM entries AS hold"
    " WHERE hold.request_id = row.request_id AND hold.attempt_no = row.attempt_no AND hold.kind = 'reserved'),"
    " row.ts) END"
)
"""The time in whose periods a row counts; the columns are those of `row`."""


def summed_rows(least: str, integer: str) -> str:
    """Return SQL for the rows that reports sum up, as columns slot, key_id, the group and the sums.

    `least` is the database's function for the smaller of two values, `integer` casts a truth value to 0 or 1. A
    condition on `row` can be appended.
    """
    tokens_in = f"{least}(row.prompt_tokens, {MOST_COUNTED})"
    tokens_out = f"{least}(row.completion_tokens, {MOST_COUNTED})"
    group = ", ".join(f"row.{name}" for name in Group._fields)
    charged = "row.kind = 'charged'"
    return (
        f"SELECT ({BOOKED_MS}) / {SLOT_MS} AS slot, row.key_id, {group},"  # noqa: S608
        f" {integer.format(f'({charged})')} AS attempts,"
        f" {integer.format(f'({charged} AND {_FIRST})')} AS requests,"
        f" {integer.format(f'({charged} AND row.status IN ({_ANSWERED}))')} AS answers,"
        " row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.reasoning_tokens,"
        f" CASE WHEN {charged} THEN 2 * {tokens_in} * {tokens_out} + {tokens_out} * {tokens_out} ELSE 0 END"
        " AS kv_token_steps_x2, row.gpu_us, row.amount_nano AS cost_nano,"
        f" {integer.format('(row.at_most_nano > 0)')} - {integer.format('(row.at_most_nano < 0)')} AS unsure,"
        " row.estimated_nano, row.at_most_nano"
        " FROM entries AS row WHERE row.kind IN ('charged', 'adjusted')"
    )


# Each row below is (day since the epoch, group, key id, sums); the days are numbers until they leave the database.

SumKey = tuple[int, Group, str]
SumRow = tuple[SumKey, Sequence[int]]


def merged(rows: Iterable[SumRow]) -> dict[SumKey, Sequence[int]]:
    """Add up the sums of rows with the same key."""
    sums: dict[SumKey, Sequence[int]] = {}
    for key, values in rows:
        other = sums.get(key)
        sums[key] = values if other is None else [a + b for a, b in zip(other, values, strict=True)]
    return sums


def totals_of(sums: Mapping[SumKey, Sequence[int]]) -> Iterator[Total]:
    """Yield a total per key; day 0 stands for several days."""
    names: dict[int, str] = {0: ""}
    for (day, group, key_id), values in sums.items():
        if day not in names:
            names[day] = day_of(day * DAY_MS)
        yield Total(names[day], key_id, group, *values)


def total_order(total: Total) -> tuple[Any, ...]:
    """Return the sort key of a total: its day and group, with the local groups of a day first."""
    return (total.day, not total.group.local, *total.group[1:], total.key_id)


_DAY_AND_GROUP = itemgetter(0, 1)


def key_work_of(
    stored: Iterable[tuple[int, int, str, int]], groups: Mapping[int, Group], fresh: Iterable[SumRow]
) -> Iterator[KeyWork]:
    """Yield the work by day, group and API key.

    `stored` are rows (day, number of the group, key id, GPU microseconds) ordered by the first three, `groups` the
    groups by their numbers, and `fresh` the rows that are not in the stored sums yet.
    """
    late: dict[tuple[int, Group], dict[str, int]] = {}
    for (day, group, key_id), values in fresh:
        by_key = late.setdefault((day, group), {})
        by_key[key_id] = by_key.get(key_id, 0) + values[_GPU_US]
    for (day, number), rows in groupby(stored, _DAY_AND_GROUP):
        shares = [(row[2], row[3]) for row in rows]
        added = late.pop((day, groups[number]), None)
        if added is not None:
            for key_id, gpu_us in shares:
                added[key_id] = added.get(key_id, 0) + gpu_us
            shares = sorted(added.items())
        yield KeyWork(day_of(day * DAY_MS), groups[number], shares)
    for (day, group), by_key in late.items():
        yield KeyWork(day_of(day * DAY_MS), group, sorted(by_key.items()))


_GPU_US = SUMS.index("gpu_us")


@dataclass(frozen=True, slots=True)
class SumStatements:
    """The statements that read the sums in one database, each for the stored sums and for the rows after their mark."""

    totals: str
    totals_tail: str
    key_totals: str
    key_totals_tail: str
    key_work: str
    key_work_tail: str


class SqlSums(Sums):
    """Sums of an SQL database, read on one connection that sees one snapshot while they are read.

    `groups` are the groups by their numbers.
    """

    def __init__(self, statements: SumStatements, groups: Mapping[int, Group]) -> None:
        self._statements = statements
        self._groups = groups

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        slots = _slots(start_ms, end_ms)
        rows = [*self._stored(self._statements.totals, slots), *self._tail(self._statements.totals_tail, slots)]
        return tuple(sorted(totals_of(merged(rows)), key=total_order))

    def key_totals(self, start_ms: int, end_ms: int) -> Iterator[Total]:
        stored = self._stored(self._statements.key_totals, _days(start_ms, end_ms))
        tail = self._tail(self._statements.key_totals_tail, _slots(start_ms, end_ms))
        return totals_of(merged([*stored, *tail]))

    def key_work(self, start_ms: int, end_ms: int) -> Iterator[KeyWork]:
        tail = self._tail(self._statements.key_work_tail, _slots(start_ms, end_ms))
        fresh = [row for row in tail if row[0][1].local]
        return key_work_of(self._rows(self._statements.key_work, _days(start_ms, end_ms)), self._groups, fresh)

    @abstractmethod
    def _rows(self, sql: str, bounds: Sequence[int]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement, a few of them in memory at once."""

    @abstractmethod
    def _stored(self, sql: str, bounds: Sequence[int]) -> Iterator[SumRow]:
        """Yield stored sums."""

    @abstractmethod
    def _tail(self, sql: str, slots: Sequence[int]) -> Iterator[SumRow]:
        """Yield the sums of the rows after the mark."""


def _slots(start_ms: int, end_ms: int) -> tuple[int, int]:
    return start_ms // SLOT_MS, end_ms // SLOT_MS


def _days(start_ms: int, end_ms: int) -> tuple[int, int]:
    return start_ms // DAY_MS, end_ms // DAY_MS
