"""Opening and closing rentals, so that GPU time is billed once, whatever starts, stops or crashes.

1. A declared rental (`spillway rentals start`, a deploy script) runs until it is declared stopped, whether or not a
   router runs, because a rented GPU costs money even while the router is down.
2. After the first declared rental, all rentals must be declared: no router opens one by itself any more.
3. Otherwise a router bills its own uptime at the configured price. At its start it continues the open rental of its
   machine, or opens one; at a clean stop it closes it. Routers with the same machine (`RentalTerms.machine`) share one
   rental: if another one has closed it, the next `tick` opens a new one that begins at that time. Routers with
   different machines have a rental each, in one ledger.
4. Every tick notes that the machine was seen. A rental whose router was not seen for half an hour ends when it was seen
   last, because it is unknown whether the machine was still rented; any router of the ledger ends it.
5. A changed price or number of GPUs ends a rental and begins another one at the same millisecond.
6. Other fixed costs run from their first day until they leave the configuration, whether or not a router runs.

Methods may be called from any thread and wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import CONTINUE_MS, ROUTER, booked
from spillway_router.ledger.rentals.closed_days import DayCloser
from spillway_router.ledger.rentals.corrections import RentalBooks
from spillway_router.ledger.rentals.other_costs import OtherCostTerms, keep_other_costs


@dataclass(frozen=True, slots=True)
class RentalTerms:
    """The rented GPUs as configured; the price is in nano-dollars per hour of one GPU, or, where
    `price_nano_per_month` is set, per calendar month of one GPU. `machine` says which GPUs they are."""

    gpu: str
    count: int
    price_nano_per_hour: int
    kind: Literal["reserved", "interruptible"]
    price_nano_per_month: int | None = None
    whole_nano_per_hour: int | None = None
    machine: str = ""

    def match(self, record: RentalRecord) -> bool:
        """Return whether the record is a rental on these terms."""
        return self == RentalTerms(
            gpu=record.gpu,
            count=record.count,
            price_nano_per_hour=record.price_nano_per_hour,
            kind=record.kind,
            price_nano_per_month=record.price_nano_per_month,
            whole_nano_per_hour=record.whole_nano_per_hour,
            machine=record.machine,
        )

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
            price_nano_per_month=self.price_nano_per_month,
            whole_nano_per_hour=self.whole_nano_per_hour,
            machine=self.machine,
            seen_ms=started_ms if source == ROUTER else None,
        )


@dataclass(frozen=True, slots=True)
class FixedTerms:
    """Everything with a fixed cost that a router bills: its GPUs, None if there are none, and other fixed costs.

    `is_free`: the configuration says that the GPUs cost nothing; without it their price 0 is an unknown one.
    """

    rental: RentalTerms | None = None
    other: tuple[OtherCostTerms, ...] = ()
    is_free: bool = False


class Books:
    """The fixed cost on the books of one process: rows, corrections, and closed days that follow them."""

    def __init__(self, ledger: Ledger) -> None:
        self._keeper = RentalBooks(ledger)
        self._closer = DayCloser(ledger)

    def settle(self, now_ms: int) -> int:
        """Write the due rows and the corrections, and correct closed days; return the number of rows of rentals.

        Raises LedgerUnavailableError.
        """
        count = self._keeper.write_due(now_ms)
        if self._keeper.touched:
            self._closer.correct_days(self._keeper.touched, now_ms)
            self._keeper.touched.clear()
        return count

    def close_days(self, now_ms: int) -> None:
        """Close the days that are over. Raises LedgerUnavailableError."""
        self._closer.close_days(now_ms)


class RentalKeeper:
    """The rentals of one router process. With `terms` None there is nothing to bill. `new_id` returns unused ids."""

    def __init__(self, ledger: Ledger, terms: FixedTerms | RentalTerms | None, new_id: Callable[[], str]) -> None:
        self._ledger = ledger
        self._terms = _fixed_terms(terms)
        self._new_id = new_id
        self._books = Books(ledger)
        self._began_ms: int | None = None
        self._lock = Lock()

    def begin(self, now_ms: int) -> None:
        """Take over or open the router's rental, at its start. Raises LedgerUnavailableError."""
        with self._lock:
            self._end_silent(now_ms)
            for record in self._mine(now_ms):
                if self._terms.rental is not None and not self._terms.rental.match(record):
                    self._stop(record, now_ms)
            self._began_ms = now_ms
            self._ensure_rental(now_ms)

    def tick(self, now_ms: int) -> None:
        """Write due rows, close past days, and apply rules 2, 3, 4 and 6; call this about once a minute.

        Raises LedgerUnavailableError.
        """
        with self._lock:
            if self._began_ms is not None:
                self._ensure_rental(now_ms)
                for record in self._mine(now_ms):
                    self._ledger.rentals.seen(record.id, now_ms)
            self._end_silent(now_ms)
            self._books.settle(now_ms)
            self._books.close_days(now_ms)

    def reprice(self, terms: FixedTerms | RentalTerms | None, now_ms: int) -> None:
        """Apply new terms from now on, after a configuration reload. Raises LedgerUnavailableError."""
        with self._lock:
            mine = self._mine(now_ms)
            self._terms = _fixed_terms(terms)
            rental = self._terms.rental
            for record in mine:
                if rental is None or not rental.match(record):
                    self._stop(record, now_ms)
            if self._began_ms is not None:
                self._ensure_rental(now_ms)

    def end(self, now_ms: int) -> None:
        """Close the router's rental and write its last rows, at a clean stop. Raises LedgerUnavailableError."""
        with self._lock:
            if self._began_ms is not None:
                self._began_ms = None
                for record in self._mine(now_ms):
                    self._stop(record, now_ms)
            self._books.settle(now_ms)

    def _ensure_rental(self, now_ms: int) -> None:
        """Ensure that the routers of this machine have exactly one open rental, or none if rentals are declared or
        there is nothing to bill; and that other fixed costs run as configured."""
        assert self._began_ms is not None
        keep_other_costs(self._ledger, self._terms.other, now_ms)
        records = self._ledger.rentals.between(0, now_ms + 1)
        supersede(self._ledger, records)
        if self._terms.rental is None or any(record.source != ROUTER for record in records):
            return
        running = self._mine(now_ms)
        for extra in running[1:]:  # two routers started at once: the older rental stays
            self._ledger.rentals.stop(extra.id, extra.started_ms)
        if not running:
            ours = [record.stopped_ms or 0 for record in records if record.machine == self._machine]
            at_ms = max(self._began_ms, min(max(ours, default=0), now_ms))
            self._ledger.rentals.add(self._terms.rental.open_rental(self._new_id(), at_ms, ROUTER))

    @property
    def _machine(self) -> str:
        return "" if self._terms.rental is None else self._terms.rental.machine

    def _stop(self, record: RentalRecord, now_ms: int) -> None:
        """End a rental now. A clock that went back doesn't take back what is on the books."""
        self._ledger.rentals.stop(record.id, max(now_ms, booked(self._ledger, record).until_ms))

    def _mine(self, now_ms: int) -> list[RentalRecord]:
        """Return the open rentals of this machine's routers, and those that an earlier version left without one."""
        records = _running(self._ledger, now_ms)
        return [record for record in records if record.machine == self._machine or record.seen_ms is None]

    def _end_silent(self, now_ms: int) -> None:
        """End the rentals of routers that were not seen for half an hour, at the last sign of them."""
        for record in _running(self._ledger, now_ms):
            seen_ms = record.seen_ms
            if seen_ms is None:  # of an earlier version, whose last row was the last sign
                seen_ms = booked(self._ledger, record).until_ms
            if now_ms - seen_ms > CONTINUE_MS:
                self._ledger.rentals.stop(record.id, seen_ms)


def supersede(ledger: Ledger, records: Sequence[RentalRecord]) -> None:
    """End the rentals of routers where a declared one begins. What they billed from then on is corrected later."""
    declared = [record for record in records if record.source != ROUTER]
    for record in records:
        if record.source != ROUTER:
            continue
        end_ms = record.stopped_ms
        for other in declared:
            if record.started_ms < (other.stopped_ms or record.started_ms + 1) and (
                end_ms is None or other.started_ms < end_ms
            ):
                end_ms = max(record.started_ms, other.started_ms)
        if declared and end_ms is None:
            end_ms = max(record.started_ms, *(other.started_ms for other in declared))
        if end_ms is not None and end_ms != record.stopped_ms:
            ledger.rentals.move_stop(record.id, end_ms)


def _running(ledger: Ledger, now_ms: int) -> list[RentalRecord]:
    records = ledger.rentals.between(0, now_ms + 1)
    return [record for record in records if record.source == ROUTER and record.stopped_ms is None]


def _fixed_terms(terms: FixedTerms | RentalTerms | None) -> FixedTerms:
    return terms if isinstance(terms, FixedTerms) else FixedTerms(terms)
