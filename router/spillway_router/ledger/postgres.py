"""The ledger in PostgreSQL: routers on several machines share entries, keys and caps.

Three connections, each behind its own lock: one writes (postgres_entries.py), one answers reports, one serves keys,
rentals and heartbeats, so that a long report holds up neither a commit nor a key. A lost connection is made again by
the next call (postgres_session.py). Tables are in migrations_postgres/.

Needs a session of its own on the server: a direct connection, or a pooler in session mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import date
from operator import attrgetter
from typing import Any

from spillway_router.core.budget import Period, check_scope
from spillway_router.ledger import migrations_postgres, postgres_entries
from spillway_router.ledger.base import (
    Balance,
    BalanceKey,
    EntryConflictError,
    KeyRecord,
    Ledger,
    Linked,
    RentalRecord,
    Rented,
    Total,
    Write,
    WriteResult,
)
from spillway_router.ledger.entries import Entry, entry_of
from spillway_router.ledger.feedback import SqlFeedback
from spillway_router.ledger.labels import SqlLabels
from spillway_router.ledger.migrations import Migration, load_migrations
from spillway_router.ledger.postgres_schema import migrate
from spillway_router.ledger.postgres_session import Connection, Place, Session, place_of
from spillway_router.ledger.postgres_sql import (
    ADD_KEY,
    ADD_RENTAL,
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
    PROBE,
    RENTALS,
    RENTED,
    REQUESTS,
    REVOKE_KEY,
    SEQS_BETWEEN,
    STOP_RENTAL,
    TOTALS,
)
from spillway_router.ledger.postgres_watch import RevisionWatch
from spillway_router.ledger.reviews import SqlReviews

WRITE_TIMEOUT_MS = 10_000
REPORT_TIMEOUT_MS = 60_000
DESK_TIMEOUT_MS = 5_000
# The writer only ever looks rows up by key. A plan made while the tables were small must not read them whole later.
_BY_KEY = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}
_FOR_SUMS = {"work_mem": "64MB", "jit": "off"}
_READ_CHUNK = 2_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_TOTAL = tuple(f.name for f in fields(Total))
_FIRST_SUM = _TOTAL.index("attempts")
_group = attrgetter(*_TOTAL[2:_FIRST_SUM])
_key_row = attrgetter(*(f.name for f in fields(KeyRecord)))
_rental_row = attrgetter(*(f.name for f in fields(RentalRecord)))


class PostgresLedger(Ledger):
    """A `Ledger` in a PostgreSQL database. Open with `PostgresLedger.open`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._writer = Session(place, WRITE_TIMEOUT_MS, _BY_KEY)
        self._reader = Session(place, REPORT_TIMEOUT_MS, _FOR_SUMS)
        self._desk = Session(place, DESK_TIMEOUT_MS)
        self._keys_revision = RevisionWatch(lambda: int(self._at_desk(KEYS_REVISION)[0][0]))

        def execute(sql: str, bound: Sequence[Any], write: bool) -> list[tuple[Any, ...]]:
            return self._at_desk(sql.replace("?", "%s"), bound, repeatable=not write)

        self._reviews, self._feedback = SqlReviews(execute), SqlFeedback(execute)
        self._labels = SqlLabels(execute)

    @classmethod
    def open(cls, url: str, migrations: Sequence[Migration] | None = None) -> PostgresLedger:
        """Connect and bring the schema up to date.

        Raises LedgerConfigError if the URL can't be read, or the database, its user or its newer schema can't be used;
        LedgerUnavailableError if the server doesn't answer or refuses.
        """
        ledger = cls(place_of(url))
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
        self._writer.run(lambda connection: connection.execute(PROBE, (time.time_ns() // 1_000_000,)))

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
        self._desk.run(lambda connection: connection.execute(ALIVE, (router_id, now_ms)))

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """See Ledger.orphans."""
        return tuple(entry_of(row) for row in self._read(ORPHANS, (now_ms - silent_ms,)))

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """See Ledger.entries_of."""
        return tuple(entry_of(row) for row in self._read(ENTRIES_OF, (request_id,)))

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """See Ledger.entries_between."""
        first, last = self._read(SEQS_BETWEEN, (start_ms, end_ms))[0]
        if first is None:
            return
        seq = first - 1
        while rows := self._read(ENTRIES_AFTER, (seq, last, start_ms, end_ms, _READ_CHUNK)):
            seq = rows[-1][0]
            for row in rows:
                yield entry_of(row[1:])

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """See Ledger.chain."""
        seq = after_seq
        while rows := self._read(LINKED_AFTER, (seq, _READ_CHUNK)):
            seq = rows[-1][0]
            for row in rows:
                yield Linked(row[0], row[1:-1], row[-1])

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """See Ledger.totals."""
        rows = self._reader.run(lambda connection: _grouped(connection, TOTALS, (start_ms, end_ms)))
        return tuple(sorted(map(_total, rows), key=_group_key))

    def requests(self, start_ms: int, end_ms: int) -> int:
        """See Ledger.requests."""
        return int(self._read(REQUESTS, (start_ms, end_ms))[0][0])

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """See Ledger.rented."""
        billed, gpu_us = self._read(RENTED, (start_ms, end_ms))[0]
        return Rented(int(billed), int(gpu_us))

    def add_rental(self, record: RentalRecord) -> None:
        """See RentalTable.add_rental."""
        if not self._at_desk(ADD_RENTAL, _rental_row(record), repeatable=False):
            raise EntryConflictError(f"a rental with the id {record.id} exists; add it again")

    def rentals(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """See RentalTable.rentals."""
        return tuple(RentalRecord(*row) for row in self._at_desk(RENTALS, (end_ms, start_ms)))

    def stop_rental(self, rental_id: str, at_ms: int) -> bool:
        """See RentalTable.stop_rental."""
        return bool(self._at_desk(STOP_RENTAL, (at_ms, rental_id), repeatable=False))

    def add_key(self, record: KeyRecord) -> None:
        """See KeyTable.add_key."""
        if not self._at_desk(ADD_KEY, _key_row(record), repeatable=False):
            raise EntryConflictError(f"a key with the id {record.id} exists; create it again")
        self._keys_revision.look()

    def keys(self) -> tuple[KeyRecord, ...]:
        """See KeyTable.keys."""
        return tuple(KeyRecord(*row) for row in self._at_desk(KEYS))

    def revoke_key(self, key_id: str, at_ms: int) -> bool:
        """See KeyTable.revoke_key."""
        revoked = bool(self._at_desk(REVOKE_KEY, (at_ms, key_id), repeatable=False))
        self._keys_revision.look()
        return revoked

    def keys_revision(self) -> int:
        """See KeyTable.keys_revision. Changes of other processes show within a second; only the first call waits for
        the database."""
        return self._keys_revision.value()

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

    def close(self) -> None:
        """See Ledger.close."""
        self._keys_revision.close()
        for session in (self._reader, self._desk, self._writer):
            session.close()

    def _read(self, sql: str, bound: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._reader.run(lambda connection: connection.execute(sql, bound).fetchall())

    def _at_desk(self, sql: str, bound: Sequence[Any] = (), *, repeatable: bool = True) -> list[tuple[Any, ...]]:
        return self._desk.run(lambda connection: connection.execute(sql, bound).fetchall(), repeatable=repeatable)


def _grouped(connection: Connection, sql: str, bound: Sequence[Any]) -> list[tuple[Any, ...]]:
    # The planner can't know that many rows fall into few groups, and would sort all rows: several times slower.
    with connection.transaction():
        connection.execute("SET LOCAL enable_sort = off")
        return connection.execute(sql, bound).fetchall()


def _total(row: tuple[Any, ...]) -> Total:
    # PostgreSQL sums whole numbers into decimals, which can't overflow.
    day = date.fromordinal(_EPOCH_DAY + row[0]).isoformat()
    return Total(day, *row[1:_FIRST_SUM], *map(int, row[_FIRST_SUM:]))


def _group_key(total: Total) -> tuple[Any, ...]:
    return (total.day, not total.local, *_group(total))
