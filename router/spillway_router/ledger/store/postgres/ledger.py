"""The ledger in PostgreSQL: routers on several machines share entries, keys and caps.

Three connections, each behind its own lock: one writes (postgres_entries.py), one answers reports, one serves keys,
rentals and heartbeats, so that a long report holds up neither a commit nor a key. A lost connection is made again by
the next call (postgres_session.py). Tables are in migrations_postgres/.

Needs a session of its own on the server: a direct connection, or a pooler in session mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import Entry, entry_of
from spillway_router.ledger.records import Rows, Total, Write, WriteResult
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.postgres import entries as postgres_entries
from spillway_router.ledger.store.postgres import migrations as migrations_postgres
from spillway_router.ledger.store.postgres import statements
from spillway_router.ledger.store.postgres.schema import migrate
from spillway_router.ledger.store.postgres.session import Connection, DatabaseAddress, PostgresSession, database_address
from spillway_router.ledger.store.postgres.watch import RevisionWatch
from spillway_router.ledger.store.sql import FIRST_SUM, SqlLedger, total_order
from spillway_router.ledger.store.statements import KEYS_REVISION, REQUESTS

WRITE_TIMEOUT_MS = 10_000
REPORT_TIMEOUT_MS = 60_000
DESK_TIMEOUT_MS = 5_000
# The writer only ever looks rows up by key. A plan made while the tables were small must not read them whole later.
_BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
_FOR_SUMS = {"work_mem": "64MB", "jit": "off"}


class PostgresLedger(SqlLedger):
    """A `Ledger` in a PostgreSQL database. Open with `PostgresLedger.open`."""

    OPEN_RESERVATIONS = statements.OPEN_RESERVATIONS
    ORPHANS = statements.ORPHANS

    def __init__(self, place: DatabaseAddress) -> None:
        super().__init__()
        self.place = place
        self._writer = PostgresSession(place, WRITE_TIMEOUT_MS, _BY_KEY)
        self._reader = PostgresSession(place, REPORT_TIMEOUT_MS, _FOR_SUMS)
        self._desk = PostgresSession(place, DESK_TIMEOUT_MS)
        self._keys_revision = RevisionWatch(lambda: int(self._read_keys(KEYS_REVISION)[0][0]))

    @classmethod
    def open(cls, url: str, migrations: Sequence[Migration] | None = None) -> PostgresLedger:
        """Connect and bring the schema up to date.

        Raises LedgerConfigError if the URL can't be read, or the database, its user or its newer schema can't be used;
        LedgerUnavailableError if the server doesn't answer or refuses.
        """
        ledger = cls(database_address(url))
        wanted = load_migrations(migrations_postgres.__name__) if migrations is None else migrations
        try:
            ledger._writer.run(lambda connection: migrate(connection, ledger.place.name, wanted))
        except BaseException:
            ledger.close()
            raise
        return ledger

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """See Ledger.commit. When LedgerUnavailableError comes while the commit was under way, all or nothing of it is
        stored; writing the same again is harmless."""
        return self._writer.run(lambda connection: postgres_entries.commit(connection, writes))

    def probe(self) -> None:
        """See Ledger.probe."""
        self._writer.run(lambda connection: connection.execute(statements.PROBE, (time.time_ns() // 1_000_000,)))

    def alive(self, router_id: str, now_ms: int) -> None:
        """See Ledger.alive."""
        self._desk.run(lambda connection: connection.execute(statements.ALIVE, (router_id, now_ms)))

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """See Ledger.entries_between."""
        first, last = self._read(statements.SEQS_BETWEEN, (start_ms, end_ms))[0]
        if first is not None:
            for row in self._chunks(statements.ENTRIES_AFTER, first - 1, last, start_ms, end_ms):
                yield entry_of(row[1:])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        rows = self._reader.run(lambda connection: _grouped(connection, statements.TOTALS, (start_ms, end_ms)))
        return tuple(sorted(map(_total, rows), key=total_order))

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return int(self._read(REQUESTS, (start_ms, end_ms))[0][0])

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision. Changes of other processes show within a second; only the first call waits for
        the database."""
        return self._keys_revision.value()

    def close(self) -> None:
        """See Ledger.close."""
        self._keys_revision.close()
        for session in (self._reader, self._desk, self._writer):
            session.close()

    def _read(self, sql: str, bound: Sequence[Any]) -> Rows:
        return self._reader.run(lambda connection: _rows(connection, sql, bound))

    def _read_keys(self, sql: str) -> Rows:
        return self._at_desk(sql, (), write=False)

    def _at_desk(self, sql: str, bound: Sequence[Any], write: bool) -> Rows:
        return self._desk.run(lambda connection: _rows(connection, sql, bound), repeatable=not write)

    def _change_keys(self, sql: str, bound: Sequence[Any]) -> bool:
        changed = bool(self._at_desk(statements.CHANGE_KEYS.format(change=sql), bound, write=True))
        self._keys_revision.look()
        return changed


def _rows(connection: Connection, sql: str, bound: Sequence[Any]) -> Rows:
    return connection.execute(sql.replace("?", "%s"), bound).fetchall()


def _grouped(connection: Connection, sql: str, bound: Sequence[Any]) -> Rows:
    # The planner can't know that many rows fall into few groups, and would sort all rows: several times slower.
    with connection.transaction():
        connection.execute("SET LOCAL enable_sort = off")
        return connection.execute(sql, bound).fetchall()


def _total(row: tuple[Any, ...]) -> Total:
    # PostgreSQL sums whole numbers into decimals, which can't overflow.
    return Total(day_of(row[0] * DAY_MS), *row[1:FIRST_SUM], *map(int, row[FIRST_SUM:]))
