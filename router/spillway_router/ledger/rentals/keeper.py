"""Who opens and closes rentals, so that GPU time is billed once, whatever starts, stops or crashes.

1. A rental that somebody declared (`spillway rentals start`, a deploy script) runs until it is declared stopped,
   whether or not a router runs: a GPU that is rented while the router is down still costs.
2. Who declares one declares them all: from then on no router opens one by itself.
3. Otherwise a router bills its own uptime at `gpu.price_per_hour`: at its start it goes on with the open rental of a
   router, or opens one; at a clean stop it closes it. Replicas share one: when another has closed it, the next look
   opens a new one from that moment on.
4. After a crash the open rental is gone on with if its last row on the books is at most half an hour old (a restart);
   else it ends where the books end, as nobody knows whether the machine was still rented.
5. A changed price or number of GPUs ends a rental and begins another at the same millisecond.

Methods may be called from any thread; they wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import RentalBooks, written
from spillway_router.ledger.rentals.closed_days import DayCloser

ROUTER = "router"
"""Source of the rentals that routers open by themselves."""
CONTINUE_MS = 30 * 60_000


@dataclass(frozen=True, slots=True)
class RentalTerms:
    """What the configuration says of the rented GPUs; money in nano-dollars per hour of one."""

    gpu: str
    count: int
    price_nano_per_hour: int
    kind: Literal["reserved", "interruptible"]

    def fit(self, record: RentalRecord) -> bool:
        """True if the record is a rental on these terms."""
        mine = (self.gpu, self.count, self.price_nano_per_hour, self.kind)
        return mine == (record.gpu, record.count, record.price_nano_per_hour, record.kind)


class RentalKeeper:
    """Rentals for one router process. `terms` None: there is nothing to bill for it. `new_id` gives unused ids."""

    def __init__(self, ledger: Ledger, terms: RentalTerms | None, new_id: Callable[[], str]) -> None:
        self._ledger = ledger
        self._terms = terms
        self._new_id = new_id
        self._books = RentalBooks(ledger)
        self._closer = DayCloser(ledger)
        self._began_ms: int | None = None
        self._lock = Lock()

    def begin(self, now_ms: int) -> None:
        """At the router's start: take over or open its rental. Raises LedgerUnavailableError."""
        with self._lock:
            for record in self._own_open(now_ms):
                known = written(self._ledger, record).until_ms
                if now_ms - known > CONTINUE_MS:
                    self._ledger.rentals.stop(record.id, known)
                elif self._terms is not None and not self._terms.fit(record):
                    self._ledger.rentals.stop(record.id, max(known, now_ms))
            self._began_ms = now_ms
            self._settle(now_ms)

    def tick(self, now_ms: int) -> None:
        """Every minute or so: rows that are due, days that are over, rules 2 and 3. Raises LedgerUnavailableError."""
        with self._lock:
            if self._began_ms is not None:
                self._settle(now_ms)
            self._books.write_due(now_ms)
            self._closer.close_days(now_ms)

    def reprice(self, terms: RentalTerms | None, now_ms: int) -> None:
        """New terms from a reloaded configuration, from now on. Raises LedgerUnavailableError."""
        with self._lock:
            self._terms = terms
            for record in self._own_open(now_ms):
                if terms is None or not terms.fit(record):
                    self._ledger.rentals.stop(record.id, max(now_ms, written(self._ledger, record).until_ms))
            if self._began_ms is not None:
                self._settle(now_ms)

    def end(self, now_ms: int) -> None:
        """At the router's clean stop: close its rental and write the rest. Raises LedgerUnavailableError."""
        with self._lock:
            if self._began_ms is not None:
                self._began_ms = None
                for record in self._own_open(now_ms):
                    self._ledger.rentals.stop(record.id, max(now_ms, written(self._ledger, record).until_ms))
            self._books.write_due(now_ms)

    def _settle(self, now_ms: int) -> None:
        """Exactly one open rental of routers, or none where rentals are declared or nothing is to be billed."""
        assert self._began_ms is not None
        records = self._ledger.rentals.between(0, now_ms + 1)
        supersede(self._ledger, records)
        if self._terms is None or any(record.source != ROUTER for record in records):
            return
        running = [record for record in records if record.stopped_ms is None]
        for extra in running[1:]:  # two routers that started at once: the older stays
            self._ledger.rentals.stop(extra.id, max(extra.started_ms, written(self._ledger, extra).until_ms))
        if not running:
            ended = max((record.stopped_ms or 0 for record in records), default=0)
            self._open(self._terms, max(self._began_ms, min(ended, now_ms)))

    def _open(self, terms: RentalTerms, at_ms: int) -> None:
        self._ledger.rentals.add(
            RentalRecord(
                self._new_id(), terms.gpu, terms.count, terms.price_nano_per_hour, terms.kind, at_ms, None, ROUTER
            )
        )

    def _own_open(self, now_ms: int) -> list[RentalRecord]:
        records = self._ledger.rentals.between(0, now_ms + 1)
        return [record for record in records if record.source == ROUTER and record.stopped_ms is None]


def supersede(ledger: Ledger, records: Sequence[RentalRecord]) -> None:
    """End open rentals of routers where a declared one has begun; not before what is on the books."""
    declared = [record.started_ms for record in records if record.source != ROUTER]
    for record in records:
        if declared and record.source == ROUTER and record.stopped_ms is None:
            until = written(ledger, record).until_ms
            ledger.rentals.stop(record.id, max(until, record.started_ms, *declared))
