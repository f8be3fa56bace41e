"""Reconciling: correct the ledger's estimates with the costs on a provider's bill.

Calls whose end is unknown are charged at their bound with status `unknown`; an answer that broke off, that its client
left or that told no usage is charged by an estimate; a failed call counts as free. A file of real costs, as CSV with
a header or as JSON lines, corrects each of them by an `adjusted` row. Its columns are `request_id`, `attempt_no`
(providers get both as `x-client-request-id: REQUEST_ID.ATTEMPT_NO`), and `cost_usd` (decimal text) or `cost_nano`
(integer nano-dollars). A bill that differs from the charge of an answer which came with its usage is reported, and only
applied with `force`: after a price that was learnt late, say. So is one that differs from an earlier bill. Applying the
same file twice changes nothing. Bills that tell days only are for reconcile_days.py.

An orphan's charge may have been corrected already, by a router that was considered dead and settled late (orphans.py).
Where it did so for sure, the bill has nothing to add, or contradicts it; where it could only estimate, a further row
corrects that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spillway_router.ledger.bills import BilledAttempt
from spillway_router.ledger.entries import FURTHER, Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.records import Write

Outcome = Literal["adjusted", "already", "not found", "not unknown", "adjusted otherwise"]
_AT_ONCE = 256
_MEASURED = ("ok", "discarded")
"""Statuses whose charge comes from a usage report, unless the row says that it is an estimate."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The outcome for one billed attempt; the adjustment adds `difference_nano` to the charge (it may be negative)."""

    bill: BilledAttempt
    outcome: Outcome
    difference_nano: int = 0


def reconcile(
    ledger: Ledger, bills: Sequence[BilledAttempt], now_ms: int, *, force: bool = False
) -> tuple[Reconciled, ...]:
    """Adjust estimated charges to the bill, and measured ones too with `force`.

    Raises LedgerUnavailableError; adjustments made before that stay.
    """
    # A call that appears twice must be looked up twice, so its two rows can't share a commit.
    done: list[Reconciled] = []
    pending: dict[tuple[str, int], BilledAttempt] = {}
    for bill in bills:
        key = (bill.request_id, bill.attempt_no)
        if key in pending or len(pending) >= _AT_ONCE:
            done += _reconcile(ledger, tuple(pending.values()), now_ms, force=force)
            pending.clear()
        pending[key] = bill
    return (*done, *_reconcile(ledger, tuple(pending.values()), now_ms, force=force))


def _reconcile(ledger: Ledger, bills: Sequence[BilledAttempt], now_ms: int, *, force: bool) -> list[Reconciled]:
    planned = [_plan(ledger, bill, now_ms, force=force) for bill in bills]
    results = iter(ledger.commit([Write((entry,)) for _, entry in planned if entry is not None]))
    return [
        # On a conflict another process has adjusted the attempt at this moment.
        outcome if entry is None or next(results) is None else Reconciled(outcome.bill, "adjusted otherwise")
        for outcome, entry in planned
    ]


def _plan(ledger: Ledger, bill: BilledAttempt, now_ms: int, *, force: bool) -> tuple[Reconciled, Entry | None]:
    """Return the outcome for a billed attempt, and the row that adjusts it, if any."""
    rows = [e for e in ledger.entries_of(bill.request_id) if e.attempt == bill.attempt_no]
    closing = next((e for e in rows if e.kind in ("charged", "released")), None)
    if closing is None:
        return Reconciled(bill, "not found"), None
    adjusted = [e for e in rows if e.kind == "adjusted"]
    booked = [closing, *adjusted]
    difference_nano = bill.cost_nano - sum(e.amount_nano for e in booked)
    is_estimate = sum(e.at_most_nano for e in booked) > 0
    if not is_estimate:
        if not difference_nano and (adjusted or closing.status != "unknown"):
            return Reconciled(bill, "already"), None
        if adjusted and not force:
            return Reconciled(bill, "adjusted otherwise"), None
        if closing.status in _MEASURED and not force:
            return Reconciled(bill, "not unknown"), None
    hold = next((e for e in rows if e.kind == "reserved"), closing)
    entry = _adjustment(closing, adjusted, difference_nano)
    # A further correction is found under no hold, and so counts in the periods of its own time.
    return Reconciled(bill, "adjusted", difference_nano), entry._replace(ts=hold.ts if adjusted else now_ms)


def _adjustment(closing: Entry, adjusted: Sequence[Entry], difference_nano: int) -> Entry:
    """Return the row that adjusts an attempt for good, after the adjustments that it has already."""
    booked = [closing, *adjusted]
    # The token counts of an adjustment are differences too, and the bill says nothing about tokens.
    return closing._replace(
        kind="adjusted",
        attempt_no=closing.attempt_no + FURTHER * len(adjusted),
        amount_nano=difference_nano,
        reserved_nano=closing.reserved_nano - sum(e.reserved_nano for e in adjusted),
        prompt_tokens=0,
        completion_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        gpu_us=0,
        cache_write_tokens=0,
        cache_write_long_tokens=0,
        billed_us=0,
        media_tokens="",
        calls="",
        estimated_nano=-sum(e.estimated_nano for e in booked),
        at_most_nano=-sum(e.at_most_nano for e in booked),
        took_ms=0,
    )
