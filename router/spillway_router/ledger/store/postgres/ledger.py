"""The ledger in PostgreSQL: routers on several machines share entries, keys and caps.

It uses up to five connections, each behind its own lock and opened on its first use. One writes (entries.py), one reads
rows and balances, one reads sums over many rows and one adds to them (sums.py), and one serves the small tables (keys,
rentals, reviews and the like) and the heartbeats. A long report therefore delays neither a commit nor the check of a
key. The next call reopens a lost connection (session.py). The schema is in migrations/.

Each connection needs a server session of its own: a direct connection, or a pooler in session mode.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from spillway_router.ledger.entries import Entry, entry_of
from spillway_router.ledger.interface import Checks, Sums
from spillway_router.ledger.records import Rows, Write, WriteResult
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.postgres import entries as postgres_entries
from spillway_router.ledger.store.postgres import migrations as schema_steps
from spillway_router.ledger.store.postgres import statements
from spillway_router.ledger.store.postgres.schema import check_schema, migrate
from spillway_router.ledger.store.postgres.session import (
    Connection,
    DatabaseAddress,
    PostgresSession,
    database_address,
    rows_of,
)
from spillway_router.ledger.store.postgres.sums import PostgresSums, checks, sum_up
from spillway_router.ledger.store.postgres.watch import RevisionWatch
from spillway_router.ledger.store.sql import SqlLedger
from spillway_router.ledger.store.statements import KEYS_REVISION
from spillway_router.ledger.tables.acts import Change, RunSql

WRITE_TIMEOUT_MS = 10_000
REPORT_TIMEOUT_MS = 60_000
TABLES_TIMEOUT_MS = 5_000
CHECK_TIMEOUT_MS = 3_600_000
# The writer only looks rows up by key. A plan that was made while the tables were small must not scan them later.
_BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
_FOR_SUMS = {"work_mem": "64MB", "jit": "off"}


class PostgresLedger(SqlLedger):
    """A `Ledger` in a PostgreSQL database; `PostgresLedger.open` opens it."""

    OPEN_RESERVATIONS = statements.OPEN_RESERVATIONS
    ORPHANS = statements.ORPHANS

    has_server = True

    def __init__(self, address: DatabaseAddress) -> None:
        super().__init__()
        self.address = address
        self._writer = PostgresSession(address, WRITE_TIMEOUT_MS, _BY_KEY)
        self._reader = PostgresSession(address, REPORT_TIMEOUT_MS, _FOR_SUMS)
        self._sums = PostgresSession(address, REPORT_TIMEOUT_MS, _FOR_SUMS)
        self._summing = PostgresSession(address, WRITE_TIMEOUT_MS, _FOR_SUMS)
        self._tables = PostgresSession(address, TABLES_TIMEOUT_MS)
        self._revision_watch = RevisionWatch(lambda: int(self._read_keys(KEYS_REVISION)[0][0]))

    @classmethod
    def open(cls, url: str, migrations: Sequence[Migration] | None = None) -> PostgresLedger:
        """Connect and bring the schema up to date.

        Raises LedgerConfigError if the URL can't be read, or the database, its user or its newer schema can't be used;
        LedgerUnavailableError if the server doesn't answer or refuses the connection.
        """
        ledger = cls(database_address(url))
        steps = load_migrations(schema_steps.__name__) if migrations is None else migrations
        try:
            ledger._writer.run(lambda connection: migrate(connection, ledger.address.name, steps))
        except BaseException:
            ledger.close()
            raise
        return ledger

    @classmethod
    def open_to_read(cls, url: str) -> PostgresLedger:
        """Connect without changing anything.

        Raises LedgerConfigError if there is no ledger or a newer Spillway made it, LedgerOutdatedError if its schema is
        older, and LedgerUnavailableError if the server can't be used.
        """
        ledger = cls(database_address(url))
        steps = load_migrations(schema_steps.__name__)
        try:
            ledger._reader.run(lambda connection: check_schema(connection, ledger.address.name, steps))
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def name(self) -> str:
        return self.address.name

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        # After a LedgerUnavailableError during the COMMIT itself, either all or nothing is stored; writing the same
        # entries again is harmless.
        return self._writer.run(lambda connection: postgres_entries.commit(connection, writes))

    def server_s(self) -> float | None:
        return float(self._read("SELECT extract(epoch FROM clock_timestamp())", ())[0][0])

    def probe(self) -> None:
        self._writer.run(lambda connection: connection.execute(statements.PROBE, (time.time_ns() // 1_000_000,)))

    def alive(self, router_id: str, now_ms: int) -> None:
        self._tables.run(lambda connection: connection.execute(statements.ALIVE, (router_id, now_ms)))

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        first, last = self._read(statements.SEQS_BETWEEN, (start_ms, end_ms))[0]
        if first is not None:
            for row in self._chunks(statements.ENTRIES_AFTER, first - 1, last, start_ms, end_ms):
                yield entry_of(row[1:])

    @contextmanager
    def sums(self) -> Iterator[Sums]:
        with self._sums.reading(REPORT_TIMEOUT_MS) as connection:
            yield PostgresSums(connection)

    @contextmanager
    def checks(self) -> Iterator[Checks]:
        with self._sums.reading(CHECK_TIMEOUT_MS) as connection:
            yield checks(connection)

    def sum_up(self, most_rows: int) -> int:
        return self._summing.run(lambda connection: sum_up(connection, most_rows))

    def close(self) -> None:
        self._revision_watch.close()
        for session in (self._reader, self._sums, self._summing, self._tables, self._writer):
            session.close()

    def _read(self, sql: str, values: Sequence[Any]) -> Rows:
        return self._reader.run(lambda connection: rows_of(connection, sql, values))

    def _read_keys(self, sql: str) -> Rows:
        return self._execute(sql, (), write=False)

    def _keys_revision(self) -> int:
        # A change that another process made shows within a second; only the first call waits for the database.
        return self._revision_watch.value()

    def _execute(self, sql: str, values: Sequence[Any], write: bool) -> Rows:
        return self._tables.run(lambda connection: rows_of(connection, sql, values), repeatable=not write)

    def _in_acts(self, work: Callable[[RunSql], Rows]) -> Rows:
        def locked(run: RunSql) -> Rows:
            run(statements.LOCK_ACTS, ())
            return work(run)

        return self._transact(locked)

    def _transact(self, work: Callable[[RunSql], Rows]) -> Rows:
        def in_transaction(connection: Connection) -> Rows:
            with connection.transaction():
                return work(partial(rows_of, connection))

        return self._tables.run(in_transaction, repeatable=False)

    def _change_keys(self, sql: str, values: Sequence[Any], change: Change) -> bool:
        changed = super()._change_keys(sql, values, change)
        self._revision_watch.refresh()
        return changed
