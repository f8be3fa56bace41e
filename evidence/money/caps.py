"""How much of every cap is taken after each row of the ledger, computed from the rows alone, and what the bill says.

This code is independent of the ledger's own (posting.py, verify.py), so that it finds mistakes there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from spillway_router.ledger.entries import Entry

CapKey = tuple[str, str, str]
"""Scope, period, and the start of the period as a prefix of the ISO time: 2026-11-20T13, 2026-11-20 or 2026-11."""

_PREFIX = {"hour": 13, "day": 10, "month": 7}


def cap_keys(entry: Entry) -> Iterable[CapKey]:
    """Yield every cap that can cover an attempt, in the periods of its hold."""
    iso = datetime.fromtimestamp(entry.ts / 1000, UTC).isoformat()
    for scope in ("all", f"backend:{entry.backend}", f"key:{entry.key_id}", f"tier:{entry.tier}"):
        for period, length in _PREFIX.items():
            yield scope, period, iso[:length]


@dataclass(slots=True)
class CapWatch:
    """Follows the rows. `taken` is the current state of each cap, in nano-dollars; `over` is the largest excess over a
    limit so far."""

    limits: dict[tuple[str, str], int] = field(default_factory=dict)
    taken: defaultdict[CapKey, int] = field(default_factory=lambda: defaultdict(int))
    billed: defaultdict[CapKey, int] = field(default_factory=lambda: defaultdict(int))
    unsure: defaultdict[CapKey, int] = field(default_factory=lambda: defaultdict(int))
    """What the rows say that their estimates may be too low by; a bill may be above a limit by as much."""
    holds: dict[tuple[str, int], Entry] = field(default_factory=dict)
    open: set[tuple[str, int]] = field(default_factory=set)
    over: int = 0
    over_bill: int = 0
    above_bound: int = 0
    without_hold: int = 0
    peak: float = 0.0
    """The largest share of a limit that was ever taken."""

    def row(self, entry: Entry) -> None:
        """Take the next row of the ledger."""
        key = (entry.request_id, entry.attempt_no)
        if entry.kind == "reserved":
            self.holds[key] = entry
            self.open.add(key)
            self._move(entry, entry.reserved_nano)
            return
        hold = self.holds.get(key, entry)
        freed = hold.reserved_nano if key in self.open and entry.kind in ("charged", "released") else 0
        if freed or key in self.open:
            self.open.discard(key)
            self.above_bound += entry.amount_nano > freed
        kept = entry.reserved_nano if entry.kind == "charged" else -entry.reserved_nano
        if entry.at_most_nano:
            for cap in cap_keys(hold):
                self.unsure[cap] += entry.at_most_nano - entry.estimated_nano - kept
        self._move(hold, entry.amount_nano + kept - freed)

    def bill(self, lines: Iterable[tuple[str, str, int]]) -> None:
        """Take lines of the provider's bill; the rows of their calls must have been taken before."""
        for _, call, nano in lines:
            request_id, _, attempt = call.rpartition(".")
            hold = self.holds.get((request_id, int(attempt or 0)))
            if hold is None:
                self.without_hold += 1
                continue
            for cap in cap_keys(hold):
                self.billed[cap] += nano
                limit = self.limits.get(cap[:2])
                if limit is not None:
                    self.over_bill = max(self.over_bill, self.billed[cap] - limit - self.unsure[cap])

    def _move(self, hold: Entry, nano: int) -> None:
        for cap in cap_keys(hold):
            self.taken[cap] += nano
            limit = self.limits.get(cap[:2])
            if limit is not None and nano > 0:
                self.over = max(self.over, self.taken[cap] - limit)
                self.peak = max(self.peak, self.taken[cap] / limit if limit else 1.0)

    def now(self, scope: str, period: str) -> int:
        """Return the nano-dollars taken of a scope in its latest period."""
        periods: Mapping[str, int] = {p[2]: nano for p, nano in self.taken.items() if p[:2] == (scope, period)}
        return periods[max(periods)] if periods else 0
