"""The ledger in one SQLite file, through apsw (its own current SQLite, not the one of Python).

WAL with synchronous=FULL: a commit is on disk when it returns; with NORMAL acknowledged rows are lost at a
power cut. Many rows go in by one statement of many VALUES, a transaction by itself: SQLite then runs once
outside the interpreter lock, where a statement per row would hand the lock back and forth for each row, and
wait for it behind a busy event loop.

Three connections, each behind its own lock: one writes, one answers reports, one looks at the keys, so that a
long report holds up neither a commit nor the check of a key.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import apsw

from spillway_router.ledger.base import (
    Balance,
    EntryConflictError,
    EntryRejectedError,
    KeyRecord,
    LedgerConfigError,
    LedgerUnavailableError,
    Rented,
    Total,
)
from spillway_router.ledger.entries import COLUMNS, Entry, entry_of, row_of
from spillway_router.ledger.migrations import Migration, load_migrations
from spillway_router.ledger.queries import (
    BALANCE,
    ENTRIES_AFTER,
    ENTRIES_OF,
    KEYS,
    KEYS_REVISION,
    OPEN_RESERVATIONS,
    RENTED,
    REQUESTS,
    STORED,
    TOTALS,
    scope_filter,
)

BUSY_TIMEOUT_MS = 5_000
_MOST_ROWS = 64  # per statement; with 24 columns far below SQLite's 32,766 bound values
_READ_CHUNK = 2_000
_TOTAL = tuple(f.name for f in fields(Total))
_KEY = tuple(f.name for f in fields(KeyRecord))


class SqliteLedger:
    """A `Ledger` in a SQLite file. Open with `SqliteLedger.open`."""

    def __init__(self, path: Path, writer: apsw.Connection, reader: apsw.Connection, keys: apsw.Connection) -> None:
        self.path = path
        self._writer = writer
        self._write_lock = Lock()
        self._reader = (reader, Lock())
        self._key_reader = (keys, Lock())

    @classmethod
    def open(cls, path: Path, migrations: Sequence[Migration] | None = None) -> SqliteLedger:
        """Open or create the file (mode 0600) and bring its schema up to date.

        Raises LedgerConfigError if the folder or file can't be written or a newer Spillway made it, and
        LedgerUnavailableError if the database can't be opened otherwise.
        """
        _prepare_file(path)
        try:
            writer = _connect(path)
            _migrate(writer, path, load_migrations() if migrations is None else migrations)
            reader, keys = _connect(path), _connect(path)
        except apsw.Error as error:
            raise LedgerUnavailableError(f"the ledger {path} can't be opened: {error}") from error
        return cls(path, writer, reader, keys)

    def append(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """See Ledger.append."""
        if not entries:
            return ()
        rows = [row_of(entry) for entry in entries]
        with self._write_lock, _translated(self.path):
            if self._insert(rows) == len(rows):
                return ()
            return self._conflicts(entries, rows)

    def probe(self) -> None:
        """See Ledger.probe."""
        now_ms = time.time_ns() // 1_000_000
        with self._write_lock, _translated(self.path):
            self._writer.execute("UPDATE marks SET probed = ?", (now_ms,))

    def balance(self, scope: str, start_ms: int, end_ms: int) -> Balance:
        """See Ledger.balance."""
        condition, values = scope_filter(scope)
        bound = {"start": start_ms, "end": end_ms, **values}
        (spent, reserved) = self._read(BALANCE.format(scope=condition), bound)[0]
        return Balance(spent, reserved)

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """See Ledger.open_reservations."""
        return tuple(entry_of(row) for row in self._read(OPEN_RESERVATIONS, (start_ms, end_ms)))

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """See Ledger.entries_of."""
        return tuple(entry_of(row) for row in self._read(ENTRIES_OF, (request_id,)))

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """See Ledger.entries_between."""
        seq = 0
        while rows := self._read(ENTRIES_AFTER, (seq, start_ms, end_ms, _READ_CHUNK)):
            seq = rows[-1][0]
            for row in rows:
                yield entry_of(row[1:])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        rows = [dict(zip(_TOTAL, row, strict=True)) for row in self._read(TOTALS, (start_ms, end_ms))]
        return tuple(Total(**{**row, "local": bool(row["local"]), "document": bool(row["document"])}) for row in rows)

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return int(self._read(REQUESTS, (start_ms, end_ms))[0][0])

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """See Ledger.rented."""
        return Rented(*self._read(RENTED, (start_ms, end_ms))[0])

    def add_key(self, record: KeyRecord) -> None:
        """See KeyTable.add_key."""
        row = (
            record.id,
            record.name,
            record.role,
            record.tier,
            record.privacy,
            record.may_route,
            record.created,
            record.revoked,
            record.secret_sha256,
        )
        with self._write_lock, _translated(self.path), _transaction(self._writer):
            if self._writer.execute("SELECT 1 FROM api_keys WHERE id = ?", (record.id,)).fetchone():
                raise EntryConflictError(f"a key with the id {record.id} exists; create it again")
            self._writer.execute("INSERT INTO api_keys VALUES (?,?,?,?,?,?,?,?,?)", row)
            self._writer.execute("UPDATE marks SET keys_revision = keys_revision + 1")

    def keys(self) -> tuple[KeyRecord, ...]:
        """See KeyTable.keys."""
        rows = [dict(zip(_KEY, row, strict=True)) for row in self._rows(self._key_reader, KEYS, ())]
        return tuple(KeyRecord(**{**row, "may_route": bool(row["may_route"])}) for row in rows)

    def revoke_key(self, key_id: str, at_ms: int) -> bool:
        """See KeyTable.revoke_key."""
        with self._write_lock, _translated(self.path), _transaction(self._writer):
            before = self._writer.total_changes()
            valid = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL"
            self._writer.execute(valid, (at_ms, key_id))
            if self._writer.total_changes() == before:
                return False
            self._writer.execute("UPDATE marks SET keys_revision = keys_revision + 1")
            return True

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision."""
        return int(self._rows(self._key_reader, KEYS_REVISION, ())[0][0])

    def close(self) -> None:
        """See Ledger.close."""
        # The writer last: the last connection to go moves the WAL into the database.
        for connection, lock in (self._reader, self._key_reader, (self._writer, self._write_lock)):
            with lock:
                connection.close()

    def _read(self, sql: str, bound: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._rows(self._reader, sql, bound)

    def _rows(
        self, reader: tuple[apsw.Connection, Lock], sql: str, bound: Sequence[Any] | dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        connection, lock = reader
        with lock, _translated(self.path):
            return list(connection.execute(sql, bound))

    def _insert(self, rows: list[tuple[Any, ...]]) -> int:
        """Insert what isn't there yet, in one transaction; returns how many rows went in."""
        before = self._writer.total_changes()
        if len(rows) <= _MOST_ROWS:
            self._writer.execute(_insert_sql(len(rows)), list(chain.from_iterable(rows)))
        else:
            with _transaction(self._writer):
                for at in range(0, len(rows), _MOST_ROWS):
                    part = rows[at : at + _MOST_ROWS]
                    self._writer.execute(_insert_sql(len(part)), list(chain.from_iterable(part)))
        return self._writer.total_changes() - before

    def _conflicts(self, entries: Sequence[Entry], rows: list[tuple[Any, ...]]) -> tuple[Entry, ...]:
        """Entries whose key holds another content: the same content again is a retry, and fine."""
        found = []
        for entry, row in zip(entries, rows, strict=True):
            stored = self._writer.execute(STORED, entry.key).fetchone()
            if stored != row:
                found.append(entry)
        return tuple(found)


@lru_cache(maxsize=_MOST_ROWS)
def _insert_sql(rows: int) -> str:
    """INSERT of so many rows. The text holds column names and placeholders only; values are always bound."""
    row = f"({','.join('?' * len(COLUMNS))})"
    columns = ",".join(COLUMNS)
    return f"INSERT INTO entries ({columns}) VALUES {','.join([row] * rows)} ON CONFLICT DO NOTHING"  # noqa: S608


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The one place where errors of the database become ours."""
    try:
        yield
    except (apsw.ConstraintError, apsw.TooBigError, OverflowError, UnicodeEncodeError, TypeError) as error:
        raise EntryRejectedError(f"the ledger refused an entry: {error}") from error
    except apsw.Error as error:
        raise LedgerUnavailableError(f"the ledger {path} can't be used now: {error}") from error


@contextlib.contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors (full disk) have rolled back already; a second error here would hide the first.
        if connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")
        raise


def _prepare_file(path: Path) -> None:
    """Create folder and file for this user only. Raises LedgerConfigError saying what to change."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerConfigError(
            f"the ledger needs a folder it can write: {path} ({error.strerror}); make {path.parent} writable "
            "for this user or set ledger.url to another place, such as sqlite:///data/spillway.db"
        ) from error
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            with contextlib.suppress(PermissionError):  # another user's file that we may write
                os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    # SQLite makes its -wal and -shm files beside the database.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise LedgerConfigError(f"the folder of the ledger can't be written; make {path.parent} writable")


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _enter_wal(connection)
    # fullfsync only matters on macOS, where a plain fsync stops at the drive's cache.
    connection.execute(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA foreign_keys = 1; PRAGMA trusted_schema = 0;"
        " PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -4096"
    )
    return connection


def _enter_wal(connection: apsw.Connection) -> None:
    """Switch to WAL. SQLite doesn't wait here while another process does the same, so we do, up to the
    timeout."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _migrate(connection: apsw.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Apply what is missing, all of it or nothing. Raises LedgerConfigError for a schema newer than this
    version."""
    with _transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number INTEGER PRIMARY KEY, title TEXT NOT NULL, applied INTEGER NOT NULL) STRICT"
        )
        applied = {row[0] for row in connection.execute("SELECT number FROM migrations")}
        unknown = applied - {migration.number for migration in migrations}
        if unknown:
            raise LedgerConfigError(
                f"the ledger {path} was made by a newer Spillway (migration {max(unknown)}); "
                "install that version or set ledger.url to another file"
            )
        for migration in migrations:
            if migration.number not in applied:
                connection.execute(migration.sql)
                connection.execute(
                    "INSERT INTO migrations VALUES (?, ?, ?)",
                    (migration.number, migration.title, time.time_ns() // 1_000_000),
                )
