"""What people declare about rentals, and what they put right later. The books follow each of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spillway_router.ledger.ids import new_rental_id
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import RentalRecord
from spillway_router.ledger.rentals.books import ROUTER
from spillway_router.ledger.rentals.keeper import Books, RentalTerms, supersede
from spillway_router.ledger.rentals.watch import next_rental_id


def declare(ledger: Ledger, terms: RentalTerms, source: str, at_ms: int, now_ms: int, *, by: str = "") -> RentalRecord:
    """Record the start of a rental, now or in the past, and end those of routers where it begins. `by` is who does it,
    empty for the ledger's actor, here and below."""
    machine = terms.machine
    rental_id = next_rental_id(ledger, source, machine, now_ms) if machine else new_rental_id()
    record = terms.open_rental(rental_id, at_ms, source)
    if machine:
        record = replace(record, seen_ms=at_ms)
    ledger.rentals.add(record, by)
    supersede(ledger, ledger.rentals.between(0, now_ms + 1))
    Books(ledger).settle(now_ms)
    return record


def overlapping(ledger: Ledger, terms: RentalTerms, source: str, at_ms: int, now_ms: int) -> tuple[RentalRecord, ...]:
    """Return the declared rentals of the same GPU that run at a time or later, which may be the same GPU again."""
    return tuple(
        record
        for record in ledger.rentals.between(at_ms, now_ms + 1)
        if (record.source, record.gpu, record.machine) == (source, terms.gpu, terms.machine) and source != ROUTER
    )


def end(ledger: Ledger, records: Sequence[RentalRecord], at_ms: int, now_ms: int, *, by: str = "") -> None:
    """Record the end of rentals, now or in the past; what is on the books after it is corrected."""
    for record in records:
        ledger.rentals.move_stop(record.id, at_ms, by)
    Books(ledger).settle(now_ms)


def correct(ledger: Ledger, record: RentalRecord, right: RentalRecord, now_ms: int, *, by: str = "") -> RentalRecord:
    """Put a rental right and return it. If more than its end was wrong, another rental takes its place.

    The rows of a rental follow from its start, price and number of GPUs, so these never change: the wrong rental is
    taken back whole, which its corrections show, and the right one is written.
    """
    if replace(record, stopped_ms=right.stopped_ms) == right:
        if right.stopped_ms is not None:
            ledger.rentals.move_stop(record.id, right.stopped_ms, by)
    else:
        machine = record.machine if record.source != ROUTER else ""
        rental_id = next_rental_id(ledger, record.source, machine, now_ms) if machine else new_rental_id()
        right = replace(right, id=rental_id)
        ledger.rentals.add(right, by)
        ledger.rentals.move_stop(record.id, record.started_ms, by)
    Books(ledger).settle(now_ms)
    return right


def deployed(
    ledger: Ledger, terms: RentalTerms, source: str, now_ms: int, earlier_id: str = ""
) -> tuple[RentalRecord, bool]:
    """Return the rental of a machine that was deployed just now, and whether it ran before on the same terms.

    `earlier_id` is its rental from before rentals knew their machines. On other terms, a rental ends and another one
    begins.
    """
    running = running_rental(ledger, source, terms.machine, now_ms, earlier_id)
    if running is not None:
        if terms.match(running):
            return running, True
        end(ledger, [running], now_ms, now_ms)
    return declare(ledger, terms, source, now_ms, now_ms), False


def running_rental(ledger: Ledger, source: str, machine: str, now_ms: int, earlier_id: str = "") -> RentalRecord | None:
    """Return the running rental of a machine, None without one."""
    records = [record for record in ledger.rentals.between(0, now_ms + 1) if record.stopped_ms is None]
    mine = [record for record in records if (record.source, record.machine) == (source, machine)]
    return next(iter([*mine, *(record for record in records if record.id == earlier_id)]), None)
