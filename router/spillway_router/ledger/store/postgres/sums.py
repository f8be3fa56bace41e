"""The running sums of the PostgreSQL ledger (store/sums.py): adding rows to them, and reading them.

`seq` is given under the commit lock, which the server releases after the commit is visible. Whoever sees a row
therefore sees every row before it, and "all rows up to seq n" is complete in any snapshot that contains n.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zlib import crc32

from spillway_router.ledger.records import Group
from spillway_router.ledger.store.checks import ROWS_AGAIN, SqlChecks
from spillway_router.ledger.store.postgres.session import Connection
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

_ROWS = summed_rows("least", "({})::integer")
_WIDE_ROWS = _ROWS.replace("THEN 2 * ", "THEN 2::bigint * ")
_MORE = ", ".join(f"{name} = stored.{name} + excluded.{name}" for name in SUMS)
# SKIP LOCKED: if another router is summing up, this one has nothing to do.
_MARK = (
    "SELECT summed_seq, (SELECT max(seq) FROM entries) FROM sum_marks WHERE id = 1 FOR NO KEY UPDATE OF sum_marks"
    " SKIP LOCKED"
)
_SET_MARK = "UPDATE sum_marks SET summed_seq = %s"
_NEW_GROUPS = (
    f"INSERT INTO sum_groups ({GROUP}) SELECT DISTINCT {GROUP} FROM entries"  # noqa: S608
    " WHERE seq > %s AND seq <= %s AND kind IN ('charged', 'adjusted') ON CONFLICT DO NOTHING"
)
_ADD = (
    f"WITH fresh AS MATERIALIZED (SELECT slot, known.id AS group_id, key_id, length, {', '.join(SUMS)}"  # noqa: S608
    f" FROM ({_WIDE_ROWS} AND row.seq > %s AND row.seq <= %s) AS row JOIN sum_groups AS known ON {SAME_GROUP}),"
    f" slots AS (INSERT INTO slot_sums AS stored SELECT slot, group_id, {ADDED} FROM fresh GROUP BY slot, group_id"
    f" ON CONFLICT (slot, group_id) DO UPDATE SET {_MORE}),"
    f" lengths AS (INSERT INTO length_sums AS stored SELECT slot, group_id, length, {ADDED} FROM fresh"
    f" WHERE length <> 0 GROUP BY slot, group_id, length ON CONFLICT (slot, group_id, length) DO UPDATE SET {_MORE})"
    f" INSERT INTO key_sums AS stored SELECT slot / {SLOTS_PER_DAY}, group_id, key_id, {ADDED} FROM fresh"
    f" GROUP BY slot / {SLOTS_PER_DAY}, group_id, key_id ON CONFLICT (day, group_id, key_id) DO UPDATE SET {_MORE}"
)
_AGAIN = "CREATE TEMP TABLE fresh_sums ON COMMIT DROP AS " + ROWS_AGAIN.format(
    rows=_WIDE_ROWS, marks="sum_marks", join=""
)
_GROUPS = f"SELECT id, {GROUP} FROM sum_groups"  # noqa: S608
_SHIFTED_DAY = f"(slot + %(shift)s) / {SLOTS_PER_DAY}"
_TOTALS = (
    f"SELECT {_SHIFTED_DAY} AS day, group_id, '', {ADDED} FROM slot_sums"  # noqa: S608
    " WHERE slot >= %(start)s AND slot < %(end)s GROUP BY day, group_id"
)
_LENGTHS = (
    f"SELECT {_SHIFTED_DAY} AS day, group_id, length::text, {ADDED} FROM length_sums"  # noqa: S608
    " WHERE slot >= %(start)s AND slot < %(end)s GROUP BY day, group_id, length"
)
_KEY_TOTALS = (
    f"SELECT 0, group_id, key_id, {ADDED} FROM key_sums WHERE day >= %(start)s AND day < %(end)s"  # noqa: S608
    " GROUP BY group_id, key_id"
)
_KEY_WORK = (
    "SELECT day, group_id, key_id, gpu_us FROM key_sums WHERE day >= %(start)s AND day < %(end)s"
    " AND group_id IN (SELECT id FROM sum_groups WHERE local) ORDER BY day, group_id, key_id"
)
_READ = (
    f"SELECT {{day}} AS day_no, {{key_id}} AS who, {GROUP}, {ADDED} FROM ({_WIDE_ROWS} AND {{which}}) AS row"  # noqa: S608
    f" WHERE {{only}} AND slot >= %(start)s AND slot < %(end)s GROUP BY day_no, who, {GROUP}"
)
_TAIL = "row.seq > %(summed)s"
_EDGE = "row.seq <= %(summed)s AND " + BOOKED_BETWEEN.format(start_ms="%(start_ms)s", end_ms="%(end_ms)s")
_STATEMENTS = SumStatements(
    totals=_TOTALS,
    totals_tail=_READ.format(day=_SHIFTED_DAY, key_id="''::text", which=_TAIL, only="true"),
    lengths=_LENGTHS,
    lengths_tail=_READ.format(day=_SHIFTED_DAY, key_id="length::text", which=_TAIL, only="length <> 0"),
    key_totals=_KEY_TOTALS,
    key_totals_tail=_READ.format(day="0::bigint", key_id="key_id", which=_TAIL, only="true"),
    key_work=_KEY_WORK,
    key_work_tail=_READ.format(day=_SHIFTED_DAY, key_id="key_id", which=_TAIL, only="true"),
    edge=_READ.format(day="0::bigint", key_id="key_id", which=_EDGE, only="true"),
    work_edge=_READ.format(day="0::bigint", key_id="key_id", which=f"row.local AND {_EDGE}", only="true"),
)


def sum_up(connection: Connection, most_rows: int) -> int:
    """Add rows to the sums as `Ledger.sum_up` does, in one transaction. Raises psycopg.Error."""
    with connection.transaction():
        mark = connection.execute(_MARK).fetchone()
        if mark is None or mark[1] is None or mark[1] <= mark[0]:
            return 0
        summed, until = mark[0], min(mark[1], mark[0] + most_rows)
        connection.execute(_NEW_GROUPS, (summed, until))
        connection.execute(_ADD, (summed, until))
        connection.execute(_SET_MARK, (until,))
        return int(until - summed)


def checks(connection: Connection) -> SqlChecks:
    """Return the checks of the ledger on a connection that must be in a transaction while they run."""

    def sum_again() -> None:
        connection.execute(_AGAIN)

    return SqlChecks(lambda sql: _streamed(connection, sql), sum_again)


class PostgresSums(SqlSums):
    """Sums read on one connection, which must be in a REPEATABLE READ transaction while they are read."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(_STATEMENTS, {row[0]: Group._make(row[1:]) for row in connection.execute(_GROUPS)})
        self._connection = connection
        (mark,) = connection.execute("SELECT summed_seq FROM sum_marks").fetchall()
        self._summed = int(mark[0])

    def _rows(self, sql: str, bounds: Bounds) -> Iterator[tuple[Any, ...]]:
        return _streamed(self._connection, sql, bounds)

    def _stored(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        for day, group_id, key_id, *sums in self._rows(sql, bounds):
            yield (day, self._groups[group_id], key_id), [int(value) for value in sums]

    def _tail(self, sql: str, bounds: Bounds) -> Iterator[SumRow]:
        rows = self._connection.execute(sql, {**bounds, "summed": self._summed})
        width = 2 + len(Group._fields)
        for row in rows:
            yield (row[0], Group._make(row[2:width]), row[1]), [int(value) for value in row[width:]]


def _streamed(connection: Connection, sql: str, bounds: Bounds | None = None) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a statement through a server-side cursor, so that few of them are in memory at once."""
    # Statements may be read side by side, each by its own name.
    with connection.cursor(name=f"rows_{crc32(sql.encode()):x}") as cursor:
        cursor.itersize = 10_000
        cursor.execute(sql, bounds)
        yield from cursor
