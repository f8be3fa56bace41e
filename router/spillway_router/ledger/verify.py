"""Verify that the ledger still is what was written: look at every row and check the rules that must hold.

    chain        every row's link follows from the previous row and its own content (entries.link_of); a row that was
                 changed, removed or inserted breaks the chain, and the report names the first such row
    amounts      only adjustments have negative amounts or counts
    closing      an attempt is charged or released at most once, and a hold is closed after it was opened
    bounds       no charge is above the hold that was taken for it
    answers      at most one row of a request says that it was answered
    balances     the balances against which caps are checked are the sums of the rows
    open holds   the open reservations are the reserved rows that no other row closes
    idle time    the unused part of a day's rent is at most the rent: Used + Unused = Billed
    copy         the file of the ledger is not a copy that lacks its newest rows
    sums         the running sums from which reports are made are the sums of their rows

The chain is walked here, row by row. The other rules are questions to the database (interface.Checks), which it answers
meanwhile on another thread, so that neither needs memory for the rows. Routers may continue to write: what is compared
with each other is read in one snapshot.

Rows from before the chain (in an upgraded database) have no link; they may only precede all others. The chain alone
can't show that its last rows were cut off or that it was rewritten from some row on. Note its head (`Verified.head`)
elsewhere and pass it to a later verification, which reports whether the chain still contains it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from spillway_router.core.money.budget import Period
from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import GENESIS, link_of
from spillway_router.ledger.interface import AttemptRows, Checks, Ledger, Spent
from spillway_router.ledger.posting import HoldKey, OpenHold, balance_keys
from spillway_router.ledger.records import Balance, BalanceKey, Linked

_HOUR_MS = 3_600_000
MOST_FAULTS = 20
"""The faults that a report lists, at most; all of them are counted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A broken rule; `seq` is the row's position in the order of writing, 0 if the fault belongs to no single row."""

    rule: str
    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome: the rows read, how many of them are linked, the chain's last link in hex, and the faults in
    order."""

    rows: int
    linked: int
    head: str
    faults: tuple[Fault, ...]
    fault_count: int

    @property
    def holds(self) -> bool:
        """True if no rule is broken."""
        return not self.fault_count


def verify(ledger: Ledger, noted_head: str = "") -> Verified:
    """Check the ledger, while routers may continue writing. `noted_head` is the head of an earlier verification in hex.

    Raises LedgerUnavailableError.
    """
    walk = _Walk(missing_head=noted_head.strip().lower())
    if ledger.notice:
        walk.fault("copy", 0, ledger.notice)
    with ThreadPoolExecutor(1, "ledger-checks") as other:
        checked = other.submit(_check_rules, ledger)
        for linked in ledger.chain():
            walk.read(linked)
        walk.check_noted_head()
        rules = checked.result()
    return Verified(
        rows=walk.rows,
        linked=walk.linked,
        head=walk.link.hex(),
        faults=(*walk.faults, *rules.faults)[:MOST_FAULTS],
        fault_count=walk.fault_count + rules.fault_count,
    )


@dataclass(slots=True)
class _Faults:
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0

    def fault(self, rule: str, seq: int, detail: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(rule, seq, detail))


@dataclass(slots=True)
class _Walk(_Faults):
    missing_head: str = ""
    """The noted head in hex, until the chain reaches it."""
    rows: int = 0
    linked: int = 0
    link: bytes = GENESIS
    broken: bool = False

    def read(self, linked: Linked) -> None:
        self.rows += 1
        if not linked.link:
            if self.linked:
                self.fault("chain", linked.seq, "has no link, though rows before it have")
            return
        self.linked += 1
        if not self.broken and link_of(self.link, linked.row) != linked.link:
            self.broken = True  # reported once, because every later row would repeat it
            message = "doesn't follow from the row before: it was changed, or a row is missing or added"
            self.fault("chain", linked.seq, message)
        self.link = linked.link
        if self.missing_head and linked.link.hex() == self.missing_head:
            self.missing_head = ""

    def check_noted_head(self) -> None:
        if self.missing_head:
            message = f"doesn't contain the noted head {self.missing_head}: rows were cut off or rewritten"
            self.fault("chain", 0, message)


def _check_rules(ledger: Ledger) -> _Faults:
    faults = _Faults()
    with ledger.checks() as checks:
        for seq, name in checks.negative_rows():
            faults.fault("amounts", seq, f"{name} has a negative amount or count")
        unclosed = _check_attempts(checks, faults)
        for request_id in checks.answered_twice():
            faults.fault("answers", 0, f"request {request_id} was answered by several attempts")
        for day, billed_nano, idle_nano in checks.rent():
            if idle_nano > billed_nano:
                message = f"{day_of(day * DAY_MS)}: {idle_nano} nano-USD unused of {billed_nano} billed"
                faults.fault("idle time", 0, message)
        open_holds = _open_holds(ledger, unclosed)
        stored = checks.holds()
        for key in sorted(stored.keys() | open_holds.keys()):
            if stored.get(key) != open_holds.get(key):
                message = f"attempt {key[1]} of {key[0]}: the table and the rows disagree"
                faults.fault("open holds", 0, message)
        _check_balances(checks, open_holds, faults)
        for start_ms, name in checks.wrong_sums():
            faults.fault("sums", 0, f"the running sums of {name} from {start_ms} ms differ from their rows")
    return faults


def _check_attempts(checks: Checks, faults: _Faults) -> list[AttemptRows]:
    """Check that attempts are closed once, after they were opened, within their holds; return those that are open."""
    unclosed = []
    for attempt in checks.odd_attempts():
        name, seq = f"attempt {attempt.attempt_no} of {attempt.request_id}", attempt.closed_seq or 0
        if not attempt.closings:
            unclosed.append(attempt)
        elif attempt.closings > 1:
            faults.fault("closing", seq, f"{name} is charged or released {attempt.closings} times")
        elif attempt.opened_seq is not None and attempt.opened_seq > seq:
            faults.fault("closing", seq, f"{name} was closed before its hold was opened")
        if attempt.held_nano is not None and (attempt.charged_nano or 0) > attempt.held_nano:
            message = f"{name} cost {attempt.charged_nano} nano-USD, above its hold of {attempt.held_nano}"
            faults.fault("bounds", seq, message)
    return unclosed


def _open_holds(ledger: Ledger, unclosed: list[AttemptRows]) -> dict[HoldKey, OpenHold]:
    """Return the open holds by the rows that opened them."""
    holds = {}
    for attempt in unclosed:
        for e in ledger.entries_of(attempt.request_id):
            if e.kind == "reserved" and e.attempt_no == attempt.attempt_no:
                holds[e.request_id, e.attempt_no] = OpenHold(
                    reserved_nano=e.reserved_nano,
                    ts=e.ts,
                    backend=e.backend,
                    key_id=e.key_id,
                    tier=e.tier,
                    router_id=e.router_id,
                    user_id=e.user_id,
                )
    return holds


_Nano = list[int]
"""Nano-dollars spent, and held."""


def _check_balances(checks: Checks, holds: dict[HoldKey, OpenHold], faults: _Faults) -> None:
    """Compare the balances with the rows, day by day, so that there are never more than a day's in memory."""
    months: dict[BalanceKey, _Nano] = defaultdict(lambda: [0, 0])
    adder = _Adder(months)
    moves = heapq.merge(_held(holds), ((move, 0) for move in checks.spent()), key=lambda move: move[0].hour)
    expected = (_OfDay(move.hour * _HOUR_MS // DAY_MS, move, held_nano) for move, held_nano in moves)
    stored = (
        _OfDay(day=key[2] // DAY_MS, move=None, held_nano=0, key=key, balance=balance)
        for key, balance in checks.short_balances()
    )
    for _, of_day in groupby(heapq.merge(expected, stored, key=itemgetter(0)), key=itemgetter(0)):
        summed: dict[BalanceKey, _Nano] = defaultdict(lambda: [0, 0])
        kept: dict[BalanceKey, Balance] = {}
        for one in of_day:
            if one.move is not None:
                adder.add(summed, one.move, one.held_nano)
            elif one.key is not None and one.balance is not None:
                kept[one.key] = one.balance
        _compare(summed, kept, faults)
    _compare(months, dict(checks.month_balances()), faults)


class _OfDay(NamedTuple):
    """Something of a day: a move of money by the rows, or a stored balance."""

    day: int
    move: Spent | None
    held_nano: int
    key: BalanceKey | None = None
    balance: Balance | None = None


def _held(holds: dict[HoldKey, OpenHold]) -> Iterator[tuple[Spent, int]]:
    """Yield the open holds in the order of their hours, as moves that spend nothing, with the nano-dollars held."""
    for hold in sorted(holds.values(), key=lambda hold: hold.ts):
        move = Spent(hold.ts // _HOUR_MS, *_whose(hold), nano=0)
        yield move, hold.reserved_nano


class _Adder:
    """Adds moves to the balances in whose scopes and periods they count; many share their hour or their scopes."""

    def __init__(self, months: dict[BalanceKey, _Nano]) -> None:
        self._months = months
        self._scopes: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
        self._hour = -1
        self._starts: tuple[tuple[Period, int], ...] = ()

    def add(self, summed: dict[BalanceKey, _Nano], move: Spent, held_nano: int) -> None:
        """Add a move to the balances of its day, and to those of its month."""
        if move.hour != self._hour:
            self._hour = move.hour
            self._starts = tuple((period, start_ms) for _, period, start_ms in balance_keys("", "", "", "", _ms(move)))
        whose = _whose(move)
        scopes = self._scopes.get(whose)
        if scopes is None:
            scopes = self._scopes[whose] = tuple(dict.fromkeys(key[0] for key in balance_keys(*whose, _ms(move))))
        for period, start_ms in self._starts:
            sums = self._months if period == "month" else summed
            for scope in scopes:
                nano = sums[scope, period, start_ms]
                nano[0] += move.nano
                nano[1] += held_nano


def _whose(of: Spent | OpenHold) -> tuple[str, str, str, str]:
    return of.backend, of.key_id, of.tier, of.user_id


def _ms(move: Spent) -> int:
    return move.hour * _HOUR_MS


def _compare(summed: dict[BalanceKey, _Nano], stored: dict[BalanceKey, Balance], faults: _Faults) -> None:
    expected = {key: Balance(*nano) for key, nano in summed.items() if nano[0] or nano[1]}
    if expected == stored:
        return
    for key in sorted(stored.keys() | expected.keys()):
        actual, right = stored.get(key, Balance(0, 0)), expected.get(key, Balance(0, 0))
        if actual != right:
            scope, period, start_ms = key
            faults.fault(
                "balances",
                0,
                f"{scope} in the {period} from {start_ms} ms: stored {actual.spent_nano} nano-USD spent + "
                f"{actual.reserved_nano} held, the rows say {right.spent_nano} + {right.reserved_nano}",
            )
