"""Reservations whose router is gone: charged at their bound until somebody knows better.

A router that crashes between a hold and its settlement leaves an open reservation. Nobody knows whether the provider
got the call, and at most the bound was spent. So once a router has been silent for `SILENT_MS`, any other (or the next
one after its start) writes a charge of the bound with status `unknown`. All who try write the very same row, so a race
stores it once. `corrected` is the other end: a router that was taken for dead and settles late adjusts that charge to
the real cost.
"""

from __future__ import annotations

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Write

BEAT_S = 5.0
"""A router says this often that it lives."""
SILENT_MS = 30_000


def unknown_charge(hold: Entry) -> Entry:
    """The charge of an orphaned reservation: its bound, dated like the hold, the same whoever writes it."""
    return hold._replace(kind="charged", status="unknown", amount_nano=hold.reserved_nano, reserved_nano=0)


def close_orphans(ledger: Ledger, now_ms: int, silent_ms: int = SILENT_MS) -> tuple[Entry, ...]:
    """Charge the reservations of routers that have been silent that long; returns the charges.

    Raises LedgerUnavailableError.
    """
    charges = [unknown_charge(hold) for hold in ledger.orphans(now_ms, silent_ms)]
    results = ledger.commit([Write((charge,)) for charge in charges]) if charges else []
    return tuple(charge for charge, result in zip(charges, results, strict=True) if result is None)


def corrected(closing: Entry, bound_nano: int) -> Entry:
    """The adjustment that brings an `unknown` charge of the bound to what `closing` (charged or released) says."""
    return closing._replace(kind="adjusted", status="unknown", amount_nano=closing.amount_nano - bound_nano)
