"""What a ledger can do, and how it fails. Implementations: sqlite.py, postgres.py; one contract suite holds them all.

Methods are synchronous and safe to call from any thread. The proxy never calls `commit` itself: it hands
writes to writer.py, which commits many requests' rows together on its own thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from spillway_router.core.money.budget import Period
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.records import (
    Balance,
    BalanceKey,
    Linked,
    RentalRecord,
    Rented,
    Total,
    Write,
    WriteResult,
)
from spillway_router.ledger.tables.feedback import FeedbackTable
from spillway_router.ledger.tables.key_table import KeyTable
from spillway_router.ledger.tables.labels import LabelTable
from spillway_router.ledger.tables.reviews import ReviewTable


class RentalTable(Protocol):
    """GPU rental periods in the ledger's database."""

    def add_rental(self, record: RentalRecord) -> None:
        """Store a new period durably. Raises EntryConflictError if the id is taken."""

    def rentals(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """Periods that overlap [start, end), oldest first; one that runs has no end."""

    def stop_rental(self, rental_id: str, at_ms: int) -> bool:
        """End a period durably; False if there is no such period that still runs."""


class Ledger(KeyTable, RentalTable, Protocol):
    """Append-only entries on disk; every balance is a projection of them."""

    @property
    def reviews(self) -> ReviewTable:
        """Documents that wait for a person."""

    @property
    def feedback(self) -> FeedbackTable:
        """What people thought of answers."""

    @property
    def labels(self) -> LabelTable:
        """What audits found of local answers."""

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Store the writes in one transaction, in order; one result each, durable where it is None.

        Caps are judged inside the transaction, so they hold for any number of processes. Writing the same entry again
        is harmless (a retry after a lost acknowledgement). Raises LedgerUnavailableError, and then nothing was stored.
        """

    def append(self, entries: Sequence[Entry]) -> None:
        """Store entries as one write without caps.

        Raises EntryRejectedError, EntryConflictError or LedgerUnavailableError, and then nothing was stored.
        """
        result = self.commit((Write(tuple(entries)),))[0]
        if isinstance(result, LedgerError):
            raise result

    def probe(self) -> None:
        """Write something small durably, to learn if writing works again. Raises LedgerUnavailableError."""

    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        """Spend and open holds of a scope (`all`, `backend:NAME`, `key:ID`, `tier:NAME`) in one period.

        One look-up. A charge belongs to the period in which its attempt was reserved, else to that of its own `ts`.
        Raises BudgetError for a scope that can't be one.
        """

    def balances(self) -> Mapping[BalanceKey, Balance]:
        """All stored balances that are not zero: what `spillway ledger verify` compares with the entries."""

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """Reserved entries of [start, end) that were neither charged nor released, oldest first."""

    def alive(self, router_id: str, now_ms: int) -> None:
        """Heartbeat of a router process."""

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """Open reservations of that age or more whose router has been silent for that long, oldest first."""

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """All entries of one request in the order they were written."""

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """Entries with `ts` in [start, end) in the order they were written, read in bounded chunks."""

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """Rows after that one with their links, in the order they were written, read in bounded chunks."""

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """Sums per group of the charged and adjusted rows with `ts` in [start, end), in the order of the group keys,
        local groups of a day first."""

    def requests(self, start_ms: int, end_ms: int) -> int:
        """Number of different requests with a charged row with `ts` in [start, end)."""

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """Sum of the gpu_hour rows with `ts` in [start, end)."""

    def close(self) -> None:
        """Close the connections; harmless when called twice."""
