"""The table of GPU rentals in the ledger's database: which GPUs were rented, when, and at which price."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from operator import attrgetter

from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.records import Execute, RentalRecord, Rows
from spillway_router.ledger.tables.acts import ActKind, Change, ChangeRows, rental_fields


class RentalTable(ABC):
    """GPU rentals in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    `by` is who does it, empty for the ledger's actor.
    """

    @abstractmethod
    def add(self, record: RentalRecord, by: str = "") -> None:
        """Store a new rental. Raises EntryConflictError if the id is taken."""

    @abstractmethod
    def between(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """Return the rentals that overlap [start, end), oldest first; a running rental has no end."""

    @abstractmethod
    def stop(self, rental_id: str, at_ms: int) -> bool:
        """End a rental, at its start at the earliest; return False if no running rental has this id."""

    @abstractmethod
    def move_stop(self, rental_id: str, at_ms: int, by: str = "") -> bool:
        """Set the end of a rental, whether or not it has one; return False if no rental has this id."""

    @abstractmethod
    def seen(self, rental_id: str, at_ms: int) -> None:
        """Record that the machine of a running rental was seen running."""


_NAMES = tuple(f.name for f in fields(RentalRecord))
_row = attrgetter(*_NAMES)
_ADD = (
    f"INSERT INTO rentals ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT DO NOTHING RETURNING id"
)
_BETWEEN = (
    f"SELECT {', '.join(_NAMES)} FROM rentals"  # noqa: S608
    " WHERE started_ms < ? AND (stopped_ms IS NULL OR stopped_ms > ?) ORDER BY started_ms, id"
)
_STOP = (
    "UPDATE rentals SET stopped_ms = CASE WHEN started_ms > ? THEN started_ms ELSE ? END"
    " WHERE id = ? AND stopped_ms IS NULL RETURNING stopped_ms"
)
_MOVE_STOP = (
    "UPDATE rentals SET stopped_ms = CASE WHEN started_ms > ? THEN started_ms ELSE ? END WHERE id = ?"
    " RETURNING stopped_ms"
)
_SEEN = (
    "UPDATE rentals SET seen_ms = ? WHERE id = ? AND stopped_ms IS NULL AND (seen_ms IS NULL OR seen_ms < ?)"
    " RETURNING id"
)


class SqlRentals(RentalTable):
    """A `RentalTable` in SQL that both SQLite and PostgreSQL understand.

    `change` runs a statement that changes a rental, with what makes an act of the rows that it returns.
    """

    def __init__(self, execute: Execute, change: ChangeRows) -> None:
        self._execute = execute
        self._change = change

    def add(self, record: RentalRecord, by: str = "") -> None:
        change = Change("rental.start", record.id, rental_fields(record), by)
        if not self._change(_ADD, _row(record), lambda _: change):
            raise rental_exists(record.id)

    def between(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        return tuple(RentalRecord(*row) for row in self._execute(_BETWEEN, (end_ms, start_ms), False))

    def stop(self, rental_id: str, at_ms: int) -> bool:
        return self._set_stop(_STOP, "rental.stop", rental_id, at_ms)

    def move_stop(self, rental_id: str, at_ms: int, by: str = "") -> bool:
        return self._set_stop(_MOVE_STOP, "rental.correct", rental_id, at_ms, by)

    def _set_stop(self, sql: str, kind: ActKind, rental_id: str, at_ms: int, by: str = "") -> bool:
        def stopped(rows: Rows) -> Change:
            return Change(kind, rental_id, {"stopped_ms": rows[0][0]}, by)

        return bool(self._change(sql, (at_ms, at_ms, rental_id), stopped))

    def seen(self, rental_id: str, at_ms: int) -> None:
        self._execute(_SEEN, (at_ms, rental_id, at_ms), True)


def rental_exists(rental_id: str) -> EntryConflictError:
    """Return the error for a new rental whose id is taken."""
    return EntryConflictError(f"a rental with the id {rental_id} exists; add it again")
