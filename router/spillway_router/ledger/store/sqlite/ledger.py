"""The ledger in one SQLite file, through apsw (which bundles a current SQLite of its own, unlike Python's module).

Each connection has its own lock: one writes (entries.py), one reads rows and balances, one reads the keys, and one
reads sums over many rows (sums.py). A long report therefore delays neither a commit nor the check of a key.

While a router has the file open, its newest rows are in the -wal file beside it. The mark `in_use` is set in the file
itself meanwhile, so a copy of the file alone can be told from a ledger: it says that it is in use, but there is no -wal
file. The mark is set with each heartbeat and removed by whoever closes the file last. After a crash the -wal file is
still there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import apsw
from orjson import dumps, loads

from spillway_router.ledger.entries import Entry, entry_of
from spillway_router.ledger.errors import LedgerUnavailableError, no_ledger
from spillway_router.ledger.interface import Checks, Sums, WrongSums
from spillway_router.ledger.records import Canonical, Rows, Write, WriteResult
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.sql import SqlLedger
from spillway_router.ledger.store.sqlite import migrations as schema
from spillway_router.ledger.store.sqlite import statements
from spillway_router.ledger.store.sqlite.entries import EntryStore
from spillway_router.ledger.store.sqlite.file import (
    FilePlace,
    check_restored,
    check_schema,
    connect,
    connect_to_read,
    has_mark,
    migrate,
    prepare_file,
    release_memory,
    snapshot,
    transaction,
    translated,
    unavailable,
    wal_of,
)
from spillway_router.ledger.store.sqlite.sums import SqliteSums, checks, sum_up
from spillway_router.ledger.store.sqlite.sums_process import MANY_ROWS, sums_process
from spillway_router.ledger.store.statements import KEYS_REVISION
from spillway_router.ledger.tables.acts import RunSql

KEYS_BUSY_TIMEOUT_MS = 20
"""Keys are checked on the event loop, which rather goes on with the keys that it knows."""


@dataclass(frozen=True, slots=True)
class Readers:
    """The connections that only read: one for rows and balances, one for keys, one for sums over many rows."""

    rows: apsw.Connection
    keys: apsw.Connection
    sums: apsw.Connection


class SqliteLedger(SqlLedger):
    """A `Ledger` in a SQLite file; `SqliteLedger.open` opens it."""

    OPEN_RESERVATIONS = statements.OPEN_RESERVATIONS
    ORPHANS = statements.ORPHANS

    def __init__(self, path: Path, writer: apsw.Connection, readers: Readers, *, had_wal: bool) -> None:
        super().__init__()
        self.path = path
        in_use = has_mark(writer) and bool(writer.execute("SELECT in_use FROM marks").fetchall()[0][0])
        self._is_copy = in_use and not had_wal
        self._releases = had_wal
        """Whether the mark `in_use` is ours to remove, or that of a router that crashed."""
        self._writer = writer
        self._entries = EntryStore(writer)
        self._write_lock = Lock()
        self._place = FilePlace.of(path)
        self._reader = (readers.rows, Lock())
        self._key_reader = (readers.keys, Lock())
        self._sums_reader = (readers.sums, Lock())

    @classmethod
    def open(cls, path: Path, migrations: Sequence[Migration] | None = None) -> SqliteLedger:
        """Open or create the file (mode 0600) and bring its schema up to date.

        Raises LedgerConfigError if the folder or file can't be written or a newer Spillway made it, and
        LedgerUnavailableError if the database can't be opened otherwise.
        """
        prepare_file(path)
        had_wal = wal_of(path).exists()
        try:
            writer = connect(path)
            migrate(writer, path, load_migrations(schema.__name__) if migrations is None else migrations)
            readers = Readers(connect(path), connect(path), connect(path))
            readers.keys.set_busy_timeout(KEYS_BUSY_TIMEOUT_MS)
        except apsw.Error as error:
            raise LedgerUnavailableError(f"the ledger {path} can't be opened: {error}") from error
        return cls(path, writer, readers, had_wal=had_wal)

    @classmethod
    def open_to_read(cls, path: Path) -> SqliteLedger:
        """Open an existing file without changing anything; every write fails.

        Raises LedgerConfigError if there is no ledger or a newer Spillway made it, LedgerOutdatedError if its schema is
        older, and LedgerUnavailableError if the database can't be opened otherwise.
        """
        check_restored(path)
        if not path.exists():
            raise no_ledger(str(path))
        had_wal = wal_of(path).exists()
        try:
            first = connect_to_read(path)
            check_schema(first, path, load_migrations(schema.__name__))
            rest = Readers(connect_to_read(path), connect_to_read(path), connect_to_read(path))
        except apsw.Error as error:
            raise LedgerUnavailableError(f"the ledger {path} can't be opened: {error}") from error
        return cls(path, first, rest, had_wal=had_wal)

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def notice(self) -> str:
        if not self._is_copy:
            return ""
        return (
            f"{self.path} was copied while a router had it open, without its file {wal_of(self.path).name}, so its "
            "newest rows are missing; make backups with `spillway ledger backup FILE`"
        )

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        with self._writing():
            return self._entries.commit(writes)

    def check_place(self) -> None:
        self._place.check()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._write_lock, translated(self.path):
            self._place.check()
            yield

    def probe(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        with self._writing():
            self._writer.execute("UPDATE marks SET probed = ?", (now_ms,))

    def alive(self, router_id: str, now_ms: int) -> None:
        with self._writing():
            self._writer.execute(statements.ALIVE, (router_id, now_ms))
            self._writer.execute("UPDATE marks SET in_use = 1 WHERE in_use = 0")
            if self._writer.changes():
                self._writer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)  # into the file itself
            self._releases = True

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        first, last = self._read(statements.SEQS_BETWEEN, (start_ms, end_ms))[0]
        if first is not None:
            for row in self._chunks(statements.ENTRIES_AFTER, first - 1, last, start_ms, end_ms):
                yield entry_of(row[1:])

    def canonical(self) -> Iterator[Canonical]:
        # The database writes the JSON, which takes half as long as to make values of all columns and JSON of these.
        for seq, text, link, is_priced, is_adjusted, confidence, rest in self._chunks(statements.CANONICAL_AFTER, 0):
            if confidence is not None:
                text = f"{text[:-1]},{dumps(confidence).decode()},{rest[1:]}"
            if "\\" in text:
                text = dumps(loads(text))  # which may escape other characters than the database does, or otherwise
            yield seq, text, link, is_priced, is_adjusted

    @contextmanager
    def sums(self) -> Iterator[Sums]:
        with self._reading() as connection:
            yield SqliteSums(connection)

    @contextmanager
    def checks(self) -> Iterator[Checks]:
        with self._reading() as connection:
            yield checks(connection)

    @contextmanager
    def checking_sums(self) -> Iterator[Callable[[], WrongSums]]:
        if len(os.sched_getaffinity(0)) < 2 or self.head()[0] < MANY_ROWS:
            yield self._wrong_sums
            return
        with sums_process(self.path) as elsewhere:

            def wrong_sums() -> WrongSums:
                wrong = elsewhere()
                return self._wrong_sums() if wrong is None else wrong

            yield wrong_sums

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        connection, lock = self._sums_reader
        with lock:
            try:
                with snapshot(connection):
                    yield connection
            except apsw.Error as error:
                raise unavailable(self.path, error) from error
            finally:
                release_memory(connection)

    def sum_up(self, most_rows: int) -> int:
        with self._writing():
            return sum_up(self._writer, most_rows)

    def close(self) -> None:
        # The writer closes last, because the last connection to close moves the WAL into the database.
        readers = (self._reader, self._key_reader, self._sums_reader)
        for connection, lock in (*readers, (self._writer, self._write_lock)):
            with lock:
                connection.close()
        if self._releases and self.path.exists() and not wal_of(self.path).exists():
            self._releases = False
            with translated(self.path), closing(connect(self.path)) as connection:
                if has_mark(connection):
                    connection.execute("UPDATE marks SET in_use = 0 WHERE in_use = 1")

    def _read(self, sql: str, values: Sequence[Any]) -> Rows:
        return self._rows(self._reader, sql, values)

    def _read_keys(self, sql: str) -> Rows:
        return self._rows(self._key_reader, sql, ())

    def _keys_revision(self) -> int:
        return int(self._read_keys(KEYS_REVISION)[0][0])

    def _rows(self, reader: tuple[apsw.Connection, Lock], sql: str, values: Sequence[Any]) -> Rows:
        connection, lock = reader
        with lock, translated(self.path):
            return list(connection.execute(sql, values))

    def _execute(self, sql: str, values: Sequence[Any], write: bool) -> Rows:
        if not write:
            return self._read(sql, values)
        with self._writing(), transaction(self._writer):
            return list(self._writer.execute(sql, values))

    def _in_acts(self, work: Callable[[RunSql], Rows]) -> Rows:
        return self._transact(work)

    def _transact(self, work: Callable[[RunSql], Rows]) -> Rows:
        with self._writing(), transaction(self._writer):
            return work(lambda sql, values: list(self._writer.execute(sql, values)))
