"""Opening and closing rentals, so that GPU time is billed once, whatever starts, stops or crashes.

1. A declared rental (`spillway rentals start`, a deploy script) runs until it is declared stopped, whether or not a
   router runs, because a rented GPU costs money even while the router is down.
2. After the first declared rental, all rentals must be declared: no router opens one by itself any more.
3. Otherwise a router bills its own uptime at `gpu.price_per_hour`. At its start it continues the open rental of a
   router, or opens one; at a clean stop it closes it. Replicas share one rental: if another replica has closed it, the
   next `tick` opens a new one that begins at that time.
4. After a crash, the open rental continues if its last row on the books is at most half an hour old (a restart).
   Otherwise it ends with its last row, because it is unknown whether the machine was still rented.
5. A changed price or number of GPUs ends a rental and begins another one at the same millisecond.

Methods may be called from any thread and wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import RentalBooks, booked
from spillway_router.ledger.rentals.closed_days import DayCloser

ROUTER = "router"
"""The source of rentals that routers open by themselves."""
CONTINUE_MS = 30 * 60_000


@dataclass(frozen=True, slots=True)
class RentalTerms:
    """The rented GPUs as configured; the price is in nano-dollars per hour of one GPU."""

    gpu: str
    count: int
    price_nano_per_hour: int
    kind: Literal["reserved", "interruptible"]

    def match(self, record: RentalRecord) -> bool:
        """Return whether the record is a rental on these terms."""
        terms = (self.gpu, self.count, self.price_nano_per_hour, self.kind)
        return terms == (record.gpu, record.count, record.price_nano_per_hour, record.kind)

    def open_rental(self, rental_id: str, started_ms: int, source: str) -> RentalRecord:
        """Return the record of a rental on these terms that begins at `started_ms` (epoch) and runs on."""
        return RentalRecord(
            id=rental_id,
            gpu=self.gpu,
            count=self.count,
            price_nano_per_hour=self.price_nano_per_hour,
            kind=self.kind,
            started_ms=started_ms,
            stopped_ms=None,
            source=source,
        )


class RentalKeeper:
    """The rentals of one router process. With `terms` None there is nothing to bill. `new_id` returns unused ids."""

    def __init__(self, ledger: Ledger, terms: RentalTerms | None, new_id: Callable[[], str]) -> None:
        self._ledger = ledger
        self._terms = terms
        self._new_id = new_id
        self._books = RentalBooks(ledger)
        self._closer = DayCloser(ledger)
        self._began_ms: int | None = None
        self._lock = Lock()

    def begin(self, now_ms: int) -> None:
        """Take over or open the router's rental, at its start. Raises LedgerUnavailableError."""
        with self._lock:
            for record in self._open_router_rentals(now_ms):
                until_ms = booked(self._ledger, record).until_ms
                if now_ms - until_ms > CONTINUE_MS:
                    self._ledger.rentals.stop(record.id, until_ms)
                elif self._terms is not None and not self._terms.match(record):
                    self._ledger.rentals.stop(record.id, max(until_ms, now_ms))
            self._began_ms = now_ms
            self._ensure_rental(now_ms)

    def tick(self, now_ms: int) -> None:
        """Write due rows, close past days, and apply rules 2 and 3; call this about once a minute.

        Raises LedgerUnavailableError.
        """
        with self._lock:
            if self._began_ms is not None:
                self._ensure_rental(now_ms)
            self._books.write_due(now_ms)
            self._closer.close_days(now_ms)

    def reprice(self, terms: RentalTerms | None, now_ms: int) -> None:
        """Apply new terms from now on, after a configuration reload. Raises LedgerUnavailableError."""
        with self._lock:
            self._terms = terms
            for record in self._open_router_rentals(now_ms):
                if terms is None or not terms.match(record):
                    self._ledger.rentals.stop(record.id, max(now_ms, booked(self._ledger, record).until_ms))
            if self._began_ms is not None:
                self._ensure_rental(now_ms)

    def end(self, now_ms: int) -> None:
        """Close the router's rental and write its last rows, at a clean stop. Raises LedgerUnavailableError."""
        with self._lock:
            if self._began_ms is not None:
                self._began_ms = None
                for record in self._open_router_rentals(now_ms):
                    self._ledger.rentals.stop(record.id, max(now_ms, booked(self._ledger, record).until_ms))
            self._books.write_due(now_ms)

    def _ensure_rental(self, now_ms: int) -> None:
        """Ensure that routers have exactly one open rental, or none if rentals are declared or there is nothing to
        bill."""
        assert self._began_ms is not None
        records = self._ledger.rentals.between(0, now_ms + 1)
        supersede(self._ledger, records)
        if self._terms is None or any(record.source != ROUTER for record in records):
            return
        running = [record for record in records if record.stopped_ms is None]
        for extra in running[1:]:  # two routers started at once: the older rental stays
            self._ledger.rentals.stop(extra.id, max(extra.started_ms, booked(self._ledger, extra).until_ms))
        if not running:
            last_end_ms = max((record.stopped_ms or 0 for record in records), default=0)
            self._open(self._terms, max(self._began_ms, min(last_end_ms, now_ms)))

    def _open(self, terms: RentalTerms, at_ms: int) -> None:
        self._ledger.rentals.add(terms.open_rental(self._new_id(), at_ms, ROUTER))

    def _open_router_rentals(self, now_ms: int) -> list[RentalRecord]:
        records = self._ledger.rentals.between(0, now_ms + 1)
        return [record for record in records if record.source == ROUTER and record.stopped_ms is None]


def supersede(ledger: Ledger, records: Sequence[RentalRecord]) -> None:
    """End the open rentals of routers once a declared one has begun, but not before their last row on the books."""
    declared = [record.started_ms for record in records if record.source != ROUTER]
    for record in records:
        if declared and record.source == ROUTER and record.stopped_ms is None:
            until_ms = booked(ledger, record).until_ms
            ledger.rentals.stop(record.id, max(until_ms, record.started_ms, *declared))
