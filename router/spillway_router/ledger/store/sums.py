"""Running sums: what makes a report over millions of rows fast.

The rows of the ledger are never changed, and their `seq` only grows. "All rows up to seq n" is therefore a fixed set,
and its sums never change either. The database keeps them beside the rows, with the n up to which they go:

    sum_groups   the groups (records.Group) that ever occurred, numbered
    slot_sums    per quarter of an hour and group: what reports without API keys read
    key_sums     per UTC day, group and API key
    length_sums  per quarter of an hour, group and length class of the prompt, but only answers to long prompts
                 (core/money/alternatives.py)

`Ledger.sum_up` adds the next rows and moves n in one transaction. A process that dies in between has changed nothing,
and two that do it at once wait for each other. Reports read the sums and, in the same snapshot, the few rows after n.
A ledger that nobody has summed up yet is read row by row. So the sums can only be late, never wrong, and
`spillway ledger verify` compares them with the rows.

A day may be one of any time zone. Quarters of an hour add up to it exactly. The sums of API keys are per UTC day, so
where a day starts at another time, the rows between both times are read and added or subtracted (`_Edge`).

The writer doesn't keep them. That would make every row's commit dearer (a local row is one statement today), whereas
a few thousand rows at a time cost about a microsecond of the database's time each, outside of the interpreter's lock.

A row counts in the quarter of an hour of its attempt's hold, or of its own `ts` without one, as it does in balances
(posting.py).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from spillway_router.core.money.alternatives import LENGTHS
from spillway_router.ledger.calendar import DAY_MS, QUARTER_MS, Days, Stretch, day_of
from spillway_router.ledger.entries import ANSWERED
from spillway_router.ledger.interface import Sums
from spillway_router.ledger.records import Group, KeyWork, Total

SLOT_MS = QUARTER_MS
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


_MOVED = "('charged', 'adjusted')"
BOOKED_BETWEEN = (
    "row.seq IN (SELECT seq FROM entries WHERE ts >= {start_ms} AND ts < {end_ms}"  # noqa: S608
    f" AND kind IN {_MOVED} UNION SELECT late.seq FROM entries AS hold JOIN entries AS late"
    " ON late.request_id = hold.request_id AND late.attempt_no = hold.attempt_no"
    f" AND late.kind IN {_MOVED} WHERE hold.kind = 'reserved' AND hold.ts >= {{start_ms}} AND hold.ts < {{end_ms}})"
)
"""A condition that finds, by indices, all rows that can count within [start, end), and some others."""


def _length(row: str, integer: str) -> str:
    """Return SQL for the length class of a prompt, as `alternatives.length_class` does."""
    prompt = f"{row}.prompt_tokens"
    longer = " + ".join(integer.format(f"({prompt} > {length})") for length in LENGTHS)
    return f"CASE WHEN {prompt} <= {LENGTHS[0]} THEN 0 ELSE {longer} END"


def summed_rows(least: str, integer: str) -> str:
    """Return SQL for the rows that reports sum up: slot, key_id, the group, the prompt's length class, the sums.

    `least` is the database's function for the smaller of two values, `integer` casts a truth value to 0 or 1. A
    condition on `row` can be appended.
    """
    tokens_in = f"{least}(row.prompt_tokens, {MOST_COUNTED})"
    tokens_out = f"{least}(row.completion_tokens, {MOST_COUNTED})"
    group = ", ".join(f"row.{name}" for name in Group._fields)
    charged = "row.kind = 'charged'"
    return (
        f"SELECT ({BOOKED_MS}) / {SLOT_MS} AS slot, row.key_id, {group},"  # noqa: S608
        f" CASE WHEN row.status NOT IN ({_ANSWERED}) THEN 0 WHEN {charged} THEN {_length('row', integer)}"
        f" ELSE coalesce((SELECT {_length('answer', integer)} FROM entries AS answer WHERE answer.kind = 'charged'"
        " AND answer.request_id = row.request_id AND answer.attempt_no = row.attempt_no), 0) END AS length,"
        f" {integer.format(f'({charged})')} AS attempts,"
        f" {integer.format(f'({charged} AND {_FIRST})')} AS requests,"
        f" {integer.format(f'({charged} AND row.status IN ({_ANSWERED}))')} AS answers,"
        " row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.reasoning_tokens,"
        f" CASE WHEN {charged} THEN 2 * {tokens_in} * {tokens_out} + {tokens_out} * {tokens_out} ELSE 0 END"
        " AS kv_token_steps_x2, row.gpu_us, row.amount_nano AS cost_nano,"
        f" {integer.format('(row.at_most_nano > 0)')} - {integer.format('(row.at_most_nano < 0)')} AS unsure,"
        " row.estimated_nano, row.at_most_nano, row.saved_nano"
        " FROM entries AS row WHERE row.kind IN ('charged', 'adjusted')"
    )


# Each row below is (day since the epoch, group, key id, sums); the days are numbers until they leave the database.

SumKey = tuple[int, Group, str]
SumRow = tuple[SumKey, Sequence[int]]
Bounds = Mapping[str, int]
"""The values of a statement by name: `start` and `end` (slots or days), `start_ms` and `end_ms`, `shift` in slots from
UTC's day to the reader's, and `summed`, the number up to which rows are in the sums."""


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


_GPU_US = SUMS.index("gpu_us")
_WorkByKey = dict[tuple[int, Group], dict[str, int]]
"""GPU microseconds by day and group, then by key id."""


def _add_work(work: _WorkByKey, rows: Iterable[SumRow]) -> None:
    for (day, group, key_id), values in rows:
        by_key = work.setdefault((day, group), {})
        by_key[key_id] = by_key.get(key_id, 0) + values[_GPU_US]


@dataclass(frozen=True, slots=True)
class _Edge:
    """The rows between a UTC midnight and the start or end of a range: to be added to whole UTC days, or with a `sign`
    of -1 to be taken off them."""

    start_ms: int
    end_ms: int
    sign: int


def _before(at_ms: int, midnight_ms: int) -> _Edge:
    """Return what is needed where whole UTC days start at `midnight_ms`, but the range at `at_ms`."""
    return _Edge(min(at_ms, midnight_ms), max(at_ms, midnight_ms), 1 if at_ms < midnight_ms else -1)


def _after(midnight_ms: int, at_ms: int) -> _Edge:
    """Return what is needed where whole UTC days end at `midnight_ms`, but the range at `at_ms`."""
    return _Edge(min(at_ms, midnight_ms), max(at_ms, midnight_ms), 1 if at_ms > midnight_ms else -1)


@dataclass(frozen=True, slots=True)
class SumStatements:
    """The statements that read the sums in one database: the stored sums, the rows after their mark (`_tail`), and
    those of the rows before it that count between two times (`edge`, and `work_edge` for local ones)."""

    totals: str
    totals_tail: str
    lengths: str
    lengths_tail: str
    key_totals: str
    key_totals_tail: str
    key_work: str
    key_work_tail: str
    edge: str
    work_edge: str


class SqlSums(Sums):
    """Sums of an SQL database, read on one connection that sees one snapshot while they are read.

    `groups` are the groups by their numbers.
    """

    def __init__(self, statements: SumStatements, groups: Mapping[int, Group]) -> None:
        self._statements = statements
        self._groups = groups

    def totals(self, days: Days) -> tuple[Total, ...]:
        rows: list[SumRow] = []
        for stretch in days.stretches():
            bounds = _slots(stretch)
            rows += self._stored(self._statements.totals, bounds)
            rows += self._tail(self._statements.totals_tail, bounds)
        return tuple(sorted(totals_of(merged(rows)), key=total_order))

    def lengths(self, days: Days) -> Iterator[tuple[int, Total]]:
        rows: list[SumRow] = []
        for stretch in days.stretches():
            bounds = _slots(stretch)
            rows += self._stored(self._statements.lengths, bounds)
            rows += self._tail(self._statements.lengths_tail, bounds)
        for total in totals_of(merged(rows)):
            # The statements give the length class in the place of the key.
            yield int(total.key_id), replace(total, key_id="")

    def key_totals(self, start_ms: int, end_ms: int) -> Iterator[Total]:
        first, after = (start_ms + DAY_MS // 2) // DAY_MS, (end_ms + DAY_MS // 2) // DAY_MS
        edges = [_before(start_ms, first * DAY_MS), _after(after * DAY_MS, end_ms)]
        rows = [*self._stored(self._statements.key_totals, {"start": first, "end": after})]
        for edge in edges:
            rows += self._between(self._statements.edge, edge)
        rows += self._tail(self._statements.key_totals_tail, _slots(Stretch(start_ms, end_ms, 0)))
        sums = merged(rows)
        if any(edge.start_ms < edge.end_ms for edge in edges):
            # What was only taken off again counts on another day.
            sums = {key: values for key, values in sums.items() if any(values)}
        return totals_of(sums)

    def key_work(self, days: Days) -> Iterator[KeyWork]:
        late: _WorkByKey = {}
        for stretch in days.stretches():
            tail = self._tail(self._statements.key_work_tail, _slots(stretch))
            _add_work(late, (row for row in tail if row[0][1].local))
        if days.is_utc:
            bounds = {"start": days.start_ms // DAY_MS, "end": days.end_ms // DAY_MS}
            yield from self._work_of_utc_days(self._rows(self._statements.key_work, bounds), late)
            return
        for number, (name, start_ms, end_ms) in enumerate(days.each(), days.first_number):
            midnight_ms = number * DAY_MS
            work: _WorkByKey = {}
            stored = self._rows(self._statements.key_work, {"start": number, "end": number + 1})
            for _, group_id, key_id, gpu_us in stored:
                work.setdefault((number, self._groups[group_id]), {})[key_id] = gpu_us
            for edge in (_before(start_ms, midnight_ms), _after(midnight_ms + DAY_MS, end_ms)):
                _add_work(work, self._between(self._statements.work_edge, edge, number))
            for key in [key for key in late if key[0] == number]:
                by_key = work.setdefault(key, {})
                for key_id, gpu_us in late.pop(key).items():
                    by_key[key_id] = by_key.get(key_id, 0) + gpu_us
            for (_, group), by_key in work.items():
                # What was only taken off again belongs to another day.
                shares = sorted(share for share in by_key.items() if share[1])
                if shares:
                    yield KeyWork(name, group, shares)

    def _work_of_utc_days(self, stored: Iterable[tuple[Any, ...]], late: _WorkByKey) -> Iterator[KeyWork]:
        """Yield the work of rows (day, number of the group, key id, GPU microseconds), ordered by the first three, and
        of the rows that are not in the stored sums yet."""
        for (day, number), rows in groupby(stored, _DAY_AND_GROUP):
            shares = [(row[2], row[3]) for row in rows]
            added = late.pop((day, self._groups[number]), None)
            if added is not None:
                for key_id, gpu_us in shares:
                    added[key_id] = added.get(key_id, 0) + gpu_us
                shares = sorted(added.items())
            yield KeyWork(day_of(day * DAY_MS), self._groups[number], shares)
        for (day, group), by_key in late.items():
            yield KeyWork(day_of(day * DAY_MS), group, sorted(by_key.items()))

    def _between(self, sql: str, edge: _Edge, day: int = 0) -> Iterator[SumRow]:
        """Yield the sums of an edge's rows that are in the stored sums, with their sign, as sums of `day`."""
        if edge.start_ms >= edge.end_ms:
            return
        bounds = {**_slots(Stretch(edge.start_ms, edge.end_ms, 0)), "start_ms": edge.start_ms, "end_ms": edge.end_ms}
        for (_, group, key_id), values in self._tail(sql, bounds):
            yield (day, group, key_id), values if edge.sign > 0 else [-value for value in values]

    @abstractmethod
    def _rows(self, sql: str, bounds: Bounds) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a statement, a few of them in memory at once."""

    @abstractmethod
    def _stored(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        """Yield stored sums."""

    @abstractmethod
    def _tail(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        """Yield sums of rows; the statement knows the mark as `summed`."""


_DAY_AND_GROUP = itemgetter(0, 1)


def _slots(stretch: Stretch) -> dict[str, int]:
    return {
        "start": stretch.start_ms // SLOT_MS,
        "end": stretch.end_ms // SLOT_MS,
        "shift": stretch.shift_ms // SLOT_MS,
    }
