"""What a ledger in SQL answers alike, whichever database it is in: plain look-ups, rentals, keys, and the tables beside
the entries. sqlite.py and postgres.py add their connections, the commit, and the sums over many rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, ClassVar

from spillway_router.core.money.budget import Period, check_scope
from spillway_router.ledger.entries import Entry, entry_of, stored_row
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Balance, BalanceKey, KeyRecord, Linked, RentalRecord, Rented, Rows, Total
from spillway_router.ledger.store.statements import (
    ADD_KEY,
    ADD_RENTAL,
    BALANCE,
    BALANCES,
    ENTRIES_OF,
    KEY,
    KEYS,
    LINKED_AFTER,
    RENTAL,
    RENTALS,
    RENTED,
    REVOKE_KEY,
    STOP_RENTAL,
)
from spillway_router.ledger.tables.feedback import SqlFeedback
from spillway_router.ledger.tables.labels import SqlLabels
from spillway_router.ledger.tables.reviews import SqlReviews

TOTAL = tuple(f.name for f in fields(Total))
"""Names of a total's values: its group, then its sums from FIRST_SUM on."""
FIRST_SUM = TOTAL.index("attempts")
_READ_CHUNK = 2_000
_group = attrgetter(*TOTAL[2:FIRST_SUM])
_key_row = attrgetter(*KEY)
_rental_row = attrgetter(*RENTAL)


def total_order(total: Total) -> tuple[Any, ...]:
    """What totals are sorted by: their groups, local ones of a day first."""
    return (total.day, not total.local, *_group(total))


class SqlLedger(Ledger):
    """The part of a `Ledger` that all SQL databases share. Statements have ? for values."""

    OPEN_RESERVATIONS: ClassVar[str]
    ORPHANS: ClassVar[str]

    def __init__(self) -> None:
        self._reviews, self._feedback = SqlReviews(self._at_desk), SqlFeedback(self._at_desk)
        self._labels = SqlLabels(self._at_desk)

    @abstractmethod
    def _read(self, sql: str, bound: Sequence[Any]) -> Rows:
        """Rows and balances."""

    @abstractmethod
    def _at_desk(self, sql: str, bound: Sequence[Any], write: bool) -> Rows:
        """The small tables, in a transaction; a write's rows are those of RETURNING, and durable (queries.Execute)."""

    @abstractmethod
    def _read_keys(self, sql: str) -> Rows:
        """Keys, which wait for no report."""

    @abstractmethod
    def _change_keys(self, sql: str, bound: Sequence[Any]) -> bool:
        """Whether the statement changed a key; then `keys_revision` grew with it."""

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
        return tuple(map(entry_of, self._read(self.OPEN_RESERVATIONS, (start_ms, end_ms))))

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """See Ledger.orphans."""
        return tuple(map(entry_of, self._read(self.ORPHANS, (now_ms - silent_ms,))))

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """See Ledger.entries_of."""
        return tuple(map(entry_of, self._read(ENTRIES_OF, (request_id,))))

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """See Ledger.chain."""
        for row in self._chunks(LINKED_AFTER, after_seq):
            yield Linked(row[0], stored_row(row[1:-1]), row[-1])

    def _chunks(self, sql: str, after_seq: int, *bound: int) -> Iterator[tuple[Any, ...]]:
        """Rows of a statement that binds a seq to go on after, `bound`, and a limit; seq is their first column."""
        while rows := self._read(sql, (after_seq, *bound, _READ_CHUNK)):
            after_seq = rows[-1][0]
            yield from rows

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """See Ledger.rented."""
        return Rented(*map(int, self._read(RENTED, (start_ms, end_ms))[0]))

    def add_rental(self, record: RentalRecord) -> None:
        """See RentalTable.add_rental."""
        if not self._at_desk(ADD_RENTAL, _rental_row(record), True):
            raise EntryConflictError(f"a rental with the id {record.id} exists; add it again")

    def rentals(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """See RentalTable.rentals."""
        return tuple(RentalRecord(*row) for row in self._at_desk(RENTALS, (end_ms, start_ms), False))

    def stop_rental(self, rental_id: str, at_ms: int) -> bool:
        """See RentalTable.stop_rental."""
        return bool(self._at_desk(STOP_RENTAL, (at_ms, at_ms, rental_id), True))

    def add_key(self, record: KeyRecord) -> None:
        """See KeyTable.add_key."""
        if not self._change_keys(ADD_KEY, _key_row(record)):
            raise EntryConflictError(f"a key with the id {record.id} exists; create it again")

    def keys(self) -> tuple[KeyRecord, ...]:
        """See KeyTable.keys."""
        rows = [dict(zip(KEY, row, strict=True)) for row in self._read_keys(KEYS)]
        return tuple(KeyRecord(**{**row, "may_route": bool(row["may_route"])}) for row in rows)

    def revoke_key(self, key_id: str, at_ms: int) -> bool:
        """See KeyTable.revoke_key."""
        return self._change_keys(REVOKE_KEY, (at_ms, key_id))

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
