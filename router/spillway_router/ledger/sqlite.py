"""The ledger in one SQLite file, through apsw (its own current SQLite, not the one of Python).

Connections each behind their own lock: one writes (sqlite_entries.py), one reads rows and balances, one looks at the
keys, two sum up many rows (sqlite_scans.py), so that a long report holds up neither a commit nor the check of a key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from threading import Lock
from typing import Any

import apsw

from spillway_router.core.budget import Period, check_scope
from spillway_router.core.frozen import dataclass
from spillway_router.ledger.base import (
    Balance,
    BalanceKey,
    EntryConflictError,
    KeyRecord,
    Ledger,
    LedgerUnavailableError,
    Linked,
    RentalRecord,
    Rented,
    Total,
    Write,
    WriteResult,
)
from spillway_router.ledger.entries import Entry, entry_of, stored_row
from spillway_router.ledger.feedback import SqlFeedback
from spillway_router.ledger.labels import SqlLabels
from spillway_router.ledger.migrations import Migration, load_migrations
from spillway_router.ledger.queries import (
    ALIVE,
    BALANCE,
    BALANCES,
    ENTRIES_AFTER,
    ENTRIES_OF,
    KEYS,
    KEYS_REVISION,
    LINKED_AFTER,
    OPEN_RESERVATIONS,
    ORPHANS,
    RENTALS,
    RENTED,
)
from spillway_router.ledger.reviews import SqlReviews
from spillway_router.ledger.sqlite_entries import EntryStore
from spillway_router.ledger.sqlite_file import connect, migrate, prepare_file, transaction, translated
from spillway_router.ledger.sqlite_scans import Scans

_READ_CHUNK = 2_000
_KEY = tuple(f.name for f in fields(KeyRecord))
_rental_row = attrgetter(*(f.name for f in fields(RentalRecord)))


@dataclass(frozen=True, slots=True)
class Readers:
    """Connections that only read: rows and balances, keys, and long scans."""

    rows: apsw.Connection
    keys: apsw.Connection
    scans: tuple[apsw.Connection, apsw.Connection]


class SqliteLedger(Ledger):
    """A `Ledger` in a SQLite file. Open with `SqliteLedger.open`."""

    def __init__(self, path: Path, writer: apsw.Connection, readers: Readers) -> None:
        self.path = path
        self._writer = writer
        self._entries = EntryStore(writer)
        self._write_lock = Lock()
        self._reader = (readers.rows, Lock())
        self._key_reader = (readers.keys, Lock())
        self._scans = Scans(path, readers.scans)
        self._reviews, self._feedback = SqlReviews(self._at_desk), SqlFeedback(self._at_desk)
        self._labels = SqlLabels(self._at_desk)

    @classmethod
    def open(cls, path: Path, migrations: Sequence[Migration] | None = None) -> SqliteLedger:
        """Open or create the file (mode 0600) and bring its schema up to date.

        Raises LedgerConfigError if the folder or file can't be written or a newer Spillway made it, and
        LedgerUnavailableError if the database can't be opened otherwise.
        """
        prepare_file(path)
        try:
            writer = connect(path)
            migrate(writer, path, load_migrations() if migrations is None else migrations)
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

    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        """See Ledger.balance."""
        check_scope(scope)
        found = self._read(BALANCE, (scope, period, start_ms))
        return Balance(*found[0]) if found else Balance(0, 0)

    def balances(self) -> Mapping[BalanceKey, Balance]:
        """See Ledger.balances."""
        return {(scope, period, start): Balance(*found) for scope, period, start, *found in self._read(BALANCES, ())}

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """See Ledger.open_reservations."""
        return tuple(entry_of(row) for row in self._read(OPEN_RESERVATIONS, (start_ms, end_ms)))

    def alive(self, router_id: str, now_ms: int) -> None:
        """See Ledger.alive."""
        with self._write_lock, translated(self.path):
            self._writer.execute(ALIVE, (router_id, now_ms))

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """See Ledger.orphans."""
        return tuple(entry_of(row) for row in self._read(ORPHANS, (now_ms - silent_ms,)))

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

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """See Ledger.chain."""
        seq = after_seq
        while rows := self._read(LINKED_AFTER, (seq, _READ_CHUNK)):
            seq = rows[-1][0]
            for row in rows:
                yield Linked(row[0], stored_row(row[1:-1]), row[-1])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        return self._scans.totals(start_ms, end_ms)

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return self._scans.requests(start_ms, end_ms)

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
        with self._write_lock, translated(self.path), transaction(self._writer):
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
        with self._write_lock, translated(self.path), transaction(self._writer):
            before = self._writer.total_changes()
            valid = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL"
            self._writer.execute(valid, (at_ms, key_id))
            if self._writer.total_changes() == before:
                return False
            self._writer.execute("UPDATE marks SET keys_revision = keys_revision + 1")
            return True

    def add_rental(self, record: RentalRecord) -> None:
        """See RentalTable.add_rental."""
        with self._write_lock, translated(self.path), transaction(self._writer):
            if self._writer.execute("SELECT 1 FROM rentals WHERE id = ?", (record.id,)).fetchone():
                raise EntryConflictError(f"a rental with the id {record.id} exists; add it again")
            self._writer.execute("INSERT INTO rentals VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _rental_row(record))

    def rentals(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """See RentalTable.rentals."""
        return tuple(RentalRecord(*row) for row in self._read(RENTALS, (end_ms, start_ms)))

    def stop_rental(self, rental_id: str, at_ms: int) -> bool:
        """See RentalTable.stop_rental."""
        with self._write_lock, translated(self.path), transaction(self._writer):
            before = self._writer.total_changes()
            running = "UPDATE rentals SET stopped_ms = max(?, started_ms) WHERE id = ? AND stopped_ms IS NULL"
            self._writer.execute(running, (at_ms, rental_id))
            return self._writer.total_changes() > before

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision."""
        return int(self._rows(self._key_reader, KEYS_REVISION, ())[0][0])

    @property
    def reviews(self) -> SqlReviews:
        """See Ledger.reviews."""
        return self._reviews

    @property
    def feedback(self) -> SqlFeedback:
        """See Ledger.feedback."""
        return self._feedback

    @property
    def labels(self) -> SqlLabels:
        """See Ledger.labels."""
        return self._labels

    def _at_desk(self, sql: str, bound: Sequence[Any], write: bool) -> list[tuple[Any, ...]]:
        if not write:
            return self._read(sql, bound)
        with self._write_lock, translated(self.path), transaction(self._writer):
            return list(self._writer.execute(sql, bound))

    def close(self) -> None:
        """See Ledger.close."""
        self._scans.close()
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
        with lock, translated(self.path):
            return list(connection.execute(sql, bound))
