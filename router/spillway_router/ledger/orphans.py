"""Orphans: reservations whose router is gone. They are charged at their bound until the real cost is known.

A router that crashes between a hold and its settlement leaves an open reservation. It is unknown whether the provider
received the call, but at most the bound was spent. So once a router has been silent for `SILENT_MS`, any other router
(or the next one to start) writes a charge of the bound with status `unknown`. Every router writes exactly the same row,
so a race stores it once. `corrected` covers the opposite case: a router that was considered dead and settles late
adjusts that charge to the real cost. If it has an estimate only, what budgets would hold beside that stays in the
charge until a bill says more (reconcile.py).
"""

from __future__ import annotations

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Write

BEAT_S = 5.0
"""The interval between two heartbeats of a router."""
SILENT_MS = 30_000


def unknown_charge(hold: Entry) -> Entry:
    """Return the charge of an orphaned reservation: its bound, dated like the hold, the same whoever writes it."""
    bound_nano = hold.reserved_nano
    return hold._replace(
        kind="charged",
        status="unknown",
        amount_nano=bound_nano,
        reserved_nano=0,
        estimated_nano=bound_nano,
        at_most_nano=bound_nano,
    )


def close_orphans(ledger: Ledger, now_ms: int, silent_ms: int = SILENT_MS) -> tuple[Entry, ...]:
    """Charge the reservations of routers that have been silent that long; return the charges stored by this call.

    Raises LedgerUnavailableError.
    """
    charges = [unknown_charge(hold) for hold in ledger.orphans(now_ms, silent_ms)]
    results = ledger.commit([Write((charge,)) for charge in charges]) if charges else []
    return tuple(charge for charge, result in zip(charges, results, strict=True) if result is None)


def corrected(closing: Entry, bound_nano: int) -> Entry:
    """Return the adjustment from an `unknown` charge of the bound to what `closing` (charged or released) says."""
    kept_nano = closing.reserved_nano  # held beside an estimate; the charge that this corrects holds nothing
    return closing._replace(
        kind="adjusted",
        status="unknown",
        reserved_nano=0,
        amount_nano=closing.amount_nano + kept_nano - bound_nano,
        estimated_nano=closing.estimated_nano + kept_nano - bound_nano,
        at_most_nano=closing.at_most_nano - bound_nano,
        took_ms=0,
    )
