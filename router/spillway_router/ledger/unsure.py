"""The calls whose charge is not known for sure, for somebody to reconcile them with a bill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.interface import Ledger


@dataclass(frozen=True, slots=True)
class UnsureAttempt:
    """One attempt, with its charge as far as it is known and the most that it can have cost, in nano-dollars.

    `held_ms` is when it was sent (epoch milliseconds); its cost counts on that day.
    """

    request_id: str
    attempt_no: int
    held_ms: int
    backend: str
    model: str
    status: str
    estimated_nano: int
    at_most_nano: int


def unsure_attempts(ledger: Ledger, start_ms: int, end_ms: int) -> Iterator[UnsureAttempt]:
    """Yield the attempts of a range that nobody has reconciled. Raises LedgerUnavailableError.

    An attempt may end on the day after it was sent, hence the look at one more day.
    """
    for charged in ledger.entries_between(start_ms, end_ms + DAY_MS):
        if charged.kind != "charged" or charged.at_most_nano <= 0:
            continue
        rows = [row for row in ledger.entries_of(charged.request_id) if row.attempt == charged.attempt_no]
        held_ms = next((row.ts for row in rows if row.kind == "reserved"), charged.ts)
        # An adjustment that leaves something open comes from a router that was considered dead and settled late.
        at_most_nano = sum([row.at_most_nano for row in rows])
        if start_ms <= held_ms < end_ms and at_most_nano > 0:
            yield UnsureAttempt(
                request_id=charged.request_id,
                attempt_no=charged.attempt_no,
                held_ms=held_ms,
                backend=charged.backend,
                model=charged.model,
                status=charged.status,
                estimated_nano=sum([row.estimated_nano for row in rows]),
                at_most_nano=at_most_nano,
            )
