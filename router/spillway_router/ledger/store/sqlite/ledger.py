"""The ledger in one SQLite file, through apsw (its own current SQLite, not the one of Python).

Connections each behind their own lock: one writes (sqlite_entries.py), one reads rows and balances, one looks at the
keys, two sum up many rows (sqlite_scans.py), so that a long report holds up neither a commit nor the check of a key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import apsw

from spillway_router.core.frozen import dataclass
from spillway_router.ledger.entries import Entry, entry_of
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.records import Rows, Total, Write, WriteResult
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.sql import SqlLedger
from spillway_router.ledger.store.sqlite import migrations as schema
from spillway_router.ledger.store.sqlite import statements
from spillway_router.ledger.store.sqlite.entries import EntryStore
from spillway_router.ledger.store.sqlite.file import connect, migrate, prepare_file, transaction, translated
from spillway_router.ledger.store.sqlite.scans import Scans
from spillway_router.ledger.store.statements import KEYS_CHANGED, KEYS_REVISION


@dataclass(frozen=True, slots=True)
class Readers:
    """Connections that only read: rows and balances, keys, and long scans."""

    rows: apsw.Connection
    keys: apsw.Connection
    scans: tuple[apsw.Connection, apsw.Connection]


class SqliteLedger(SqlLedger):
    """A `Ledger` in a SQLite file. Open with `SqliteLedger.open`."""

    OPEN_RESERVATIONS = statements.OPEN_RESERVATIONS
    ORPHANS = statements.ORPHANS

    def __init__(self, path: Path, writer: apsw.Connection, readers: Readers) -> None:
        super().__init__()
        self.path = path
        self._writer = writer
        self._entries = EntryStore(writer)
        self._write_lock = Lock()
        self._reader = (readers.rows, Lock())
        self._key_reader = (readers.keys, Lock())
        self._scans = Scans(path, readers.scans)

    @classmethod
    def open(cls, path: Path, migrations: Sequence[Migration] | None = None) -> SqliteLedger:
        """Open or create the file (mode 0600) and bring its schema up to date.

        Raises LedgerConfigError if the folder or file can't be written or a newer Spillway made it, and
        LedgerUnavailableError if the database can't be opened otherwise.
        """
        prepare_file(path)
        try:
            writer = connect(path)
            migrate(writer, path, load_migrations(schema.__name__) if migrations is None else migrations)
            readers = Readers(connect(path), connect(path), (connect(path), connect(path)))
        except apsw.Error as error:
            raise LedgerUnavailableError(f"the ledger {path} can't be opened: {error}") from error
        return cls(path, writer, readers)

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """See Ledger.commit."""
        with self._write_lock, translated(self.path):
            return self._entries.commit(writes)

    def probe(self) -> None:
        """See Ledger.probe."""
        now_ms = time.time_ns() // 1_000_000
        with self._write_lock, translated(self.path):
            self._writer.execute("UPDATE marks SET probed = ?", (now_ms,))

    def alive(self, router_id: str, now_ms: int) -> None:
        """See Ledger.alive."""
        with self._write_lock, translated(self.path):
            self._writer.execute(statements.ALIVE, (router_id, now_ms))

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """See Ledger.entries_between."""
        for row in self._chunks(statements.ENTRIES_AFTER, 0, start_ms, end_ms):
            yield entry_of(row[1:])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        return self._scans.totals(start_ms, end_ms)

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return self._scans.requests(start_ms, end_ms)

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision."""
        return int(self._read_keys(KEYS_REVISION)[0][0])

    def close(self) -> None:
        """See Ledger.close."""
        self._scans.close()
        # The writer last: the last connection to go moves the WAL into the database.
        for connection, lock in (self._reader, self._key_reader, (self._writer, self._write_lock)):
            with lock:
                connection.close()

    def _read(self, sql: str, bound: Sequence[Any]) -> Rows:
        return self._rows(self._reader, sql, bound)

    def _read_keys(self, sql: str) -> Rows:
        return self._rows(self._key_reader, sql, ())

    def _rows(self, reader: tuple[apsw.Connection, Lock], sql: str, bound: Sequence[Any]) -> Rows:
        connection, lock = reader
        with lock, translated(self.path):
            return list(connection.execute(sql, bound))

    def _at_desk(self, sql: str, bound: Sequence[Any], write: bool) -> Rows:
        if not write:
            return self._read(sql, bound)
        with self._write_lock, translated(self.path), transaction(self._writer):
            return list(self._writer.execute(sql, bound))

    def _change_keys(self, sql: str, bound: Sequence[Any]) -> bool:
        with self._write_lock, translated(self.path), transaction(self._writer):
            changed = bool(list(self._writer.execute(sql, bound)))
            if changed:
                self._writer.execute(KEYS_CHANGED)
            return changed
