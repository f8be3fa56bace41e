"""The running sums of the SQLite ledger (store/sums.py): adding rows to them, and reading them.

Reading has a connection of its own. On it, a report over a million rows delays nobody who reads balances or looks up a
request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import apsw
import orjson

from spillway_router.ledger.records import Group
from spillway_router.ledger.store.checks import MOVES, ROWS_AGAIN, SqlChecks
from spillway_router.ledger.store.sqlite.file import transaction
from spillway_router.ledger.store.sums import (
    ADDED,
    BOOKED_BETWEEN,
    GROUP,
    SAME_GROUP,
    SLOTS_PER_DAY,
    SUMS,
    Bounds,
    SqlSums,
    SumRow,
    SumStatements,
    summed_rows,
)

_ROWS = summed_rows("min", "{}")
_SUMS = ", ".join(SUMS)
_MORE = ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
_LAST = "SELECT summed_seq, (SELECT max(seq) FROM entries) FROM marks"
_NEW_GROUPS = (
    f"INSERT OR IGNORE INTO sum_groups ({GROUP}) SELECT DISTINCT {GROUP} FROM entries"  # noqa: S608
    " WHERE seq > ? AND seq <= ? AND kind IN ('charged', 'adjusted')"
)
_FRESH = f"CREATE TEMP TABLE IF NOT EXISTS fresh_sums (slot, group_id, key_id, length, {_SUMS})"
# CROSS JOIN makes SQLite look up the group of each row, and not read all rows for each group.
_FILL_FRESH = (
    f"INSERT INTO temp.fresh_sums SELECT slot, known.id, key_id, length, {ADDED}"  # noqa: S608
    f" FROM ({_ROWS} AND row.seq > ? AND row.seq <= ?) AS row CROSS JOIN sum_groups AS known ON {SAME_GROUP}"
    " GROUP BY slot, known.id, key_id, length"
)
_ADD_SLOTS = (
    f"INSERT INTO slot_sums SELECT slot, group_id, {ADDED} FROM temp.fresh_sums WHERE true"  # noqa: S608
    f" GROUP BY slot, group_id ON CONFLICT DO UPDATE SET {_MORE}"
)
_ADD_KEYS = (
    f"INSERT INTO key_sums SELECT slot / {SLOTS_PER_DAY} AS day, group_id, key_id, {ADDED}"  # noqa: S608
    f" FROM temp.fresh_sums WHERE true GROUP BY day, group_id, key_id ON CONFLICT DO UPDATE SET {_MORE}"
)
_ADD_LENGTHS = (
    f"INSERT INTO length_sums SELECT slot, group_id, length, {ADDED} FROM temp.fresh_sums WHERE length <> 0"  # noqa: S608
    f" GROUP BY slot, group_id, length ON CONFLICT DO UPDATE SET {_MORE}"
)
_AGAIN = "CREATE TEMP TABLE fresh_sums AS " + ROWS_AGAIN.format(rows=_ROWS, marks="marks", join="CROSS")
_GROUPS = f"SELECT id, {GROUP} FROM sum_groups"  # noqa: S608
_SHIFTED_DAY = f"(slot + :shift) / {SLOTS_PER_DAY}"
_TOTALS = (
    f"SELECT {_SHIFTED_DAY} AS day, group_id, '', {ADDED} FROM slot_sums"  # noqa: S608
    " WHERE slot >= :start AND slot < :end GROUP BY day, group_id"
)
_LENGTHS = (
    f"SELECT {_SHIFTED_DAY} AS day, group_id, cast(length AS TEXT), {ADDED} FROM length_sums"  # noqa: S608
    " WHERE slot >= :start AND slot < :end GROUP BY day, group_id, length"
)
_KEY_TOTALS = (
    f"SELECT 0, group_id, key_id, {ADDED} FROM key_sums WHERE day >= :start AND day < :end"  # noqa: S608
    " GROUP BY group_id, key_id"
)
_KEY_WORK = (
    "SELECT day, group_id, key_id, gpu_us FROM key_sums WHERE day >= :start AND day < :end"
    " AND group_id IN (SELECT id FROM sum_groups WHERE local) ORDER BY day, group_id, key_id"
)
# The group is one value, a JSON array: sorting one value takes a third less time than sorting eleven.
_READ = (
    f"SELECT json_array({{day}}, {{key_id}}, {GROUP}) AS key, {ADDED} FROM ({_ROWS} AND {{which}}) AS row"  # noqa: S608
    " WHERE {only} AND slot >= :start AND slot < :end GROUP BY key"
)
_TAIL = "row.seq > :summed"
_EDGE = "row.seq <= :summed AND " + BOOKED_BETWEEN.format(start_ms=":start_ms", end_ms=":end_ms")
_STATEMENTS = SumStatements(
    totals=_TOTALS,
    totals_tail=_READ.format(day=_SHIFTED_DAY, key_id="''", which=_TAIL, only="true"),
    lengths=_LENGTHS,
    lengths_tail=_READ.format(day=_SHIFTED_DAY, key_id="length", which=_TAIL, only="length <> 0"),
    key_totals=_KEY_TOTALS,
    key_totals_tail=_READ.format(day="0", key_id="key_id", which=_TAIL, only="true"),
    key_work=_KEY_WORK,
    key_work_tail=_READ.format(day=_SHIFTED_DAY, key_id="key_id", which=_TAIL, only="true"),
    edge=_READ.format(day="0", key_id="key_id", which=_EDGE, only="true"),
    work_edge=_READ.format(day="0", key_id="key_id", which=f"row.local AND {_EDGE}", only="true"),
)


def sum_up(connection: apsw.Connection, most_rows: int) -> int:
    """Add rows to the sums as `Ledger.sum_up` does, in one transaction. Raises apsw.Error."""
    if not _next_rows(connection, most_rows):
        return 0
    connection.execute(_FRESH)
    with transaction(connection):
        rows = _next_rows(connection, most_rows)
        if not rows:
            return 0
        connection.execute(_NEW_GROUPS, rows)
        connection.execute(_FILL_FRESH, rows)
        connection.execute(_ADD_SLOTS)
        connection.execute(_ADD_KEYS)
        connection.execute(_ADD_LENGTHS)
        connection.execute("DELETE FROM temp.fresh_sums")
        connection.execute("UPDATE marks SET summed_seq = ?", rows[1:])
        return rows[1] - rows[0]


def checks(connection: apsw.Connection) -> SqlChecks:
    """Return the checks of the ledger on a connection that must be in a transaction while they run."""
    return SqlChecks(connection.execute, partial(_sum_again, connection), MOVES)


def _sum_again(connection: apsw.Connection) -> None:
    connection.execute("DROP TABLE IF EXISTS temp.fresh_sums")
    connection.execute(_AGAIN)


def _next_rows(connection: apsw.Connection, most_rows: int) -> tuple[int, int] | None:
    """Return the seq after which rows are missing in the sums, and the one up to which to add them now."""
    row: tuple[Any, ...] = connection.execute(_LAST).fetchall()[0]
    summed, last = row
    return (summed, min(last, summed + most_rows)) if last is not None and last > summed else None


class SqliteSums(SqlSums):
    """Sums read on one connection, which must be in a transaction while they are read."""

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(_STATEMENTS, {row[0]: _group(row[1:]) for row in connection.execute(_GROUPS)})
        self._connection = connection
        mark: tuple[Any, ...] = connection.execute("SELECT summed_seq FROM marks").fetchall()[0]
        self._summed = int(mark[0])

    def _rows(self, sql: str, bounds: Bounds) -> Iterator[tuple[Any, ...]]:
        return self._connection.execute(sql, bounds)

    def _stored(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        for day, group_id, key_id, *sums in self._rows(sql, bounds):
            yield (day, self._groups[group_id], key_id), sums

    def _tail(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        for key, *sums in self._connection.execute(sql, {**bounds, "summed": self._summed}):
            day, key_id, *group = orjson.loads(key)
            yield (day, _group(group), key_id), sums


def _group(values: Sequence[Any]) -> Group:
    group = Group._make(values)
    return group._replace(local=bool(group.local), document=bool(group.document))
