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
    charges      every charge whose usage and price are known is what that usage costs at that price (recompute.py)
    acts         what administrators did is in a hash chain of its own, and explains the tables of API keys, rentals and
                 other costs
    copy         the file of the ledger is not a copy that lacks its newest rows
    sums         the running sums from which reports are made are the sums of their rows

The chain is walked here, row by row. The other rules are questions to the database (interface.Checks), so that neither
needs memory for the rows. A server answers them meanwhile; of a file, the sums are checked in another process
(store/sqlite/sums_process.py). Routers may continue to write: what is compared with each other is read in one snapshot.

Rows from before the chain (in an upgraded database) have no link; they may only precede all others. The chain alone
can't show that its last rows were cut off or that it was rewritten from some row on. Note its head (`Verified.head`)
elsewhere and pass it to a later verification, which reports whether the chain still contains it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from secrets import randbits
from typing import cast

from orjson import loads

from spillway_router.core.money.budget import Period, period_start
from spillway_router.ledger.balance_proof import balances_agree
from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import GENESIS, Row
from spillway_router.ledger.interface import AttemptRows, Checks, Ledger, Spent, WrongSums
from spillway_router.ledger.posting import HoldKey, OpenHold, balance_keys
from spillway_router.ledger.recompute import ChargeChecker, ChargeCounts
from spillway_router.ledger.records import Balance, BalanceKey, Canonical
from spillway_router.ledger.tables.acts import broken_link, unexplained

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
    """The outcome: the rows read, how many of them are linked, the chain's last link in hex, the faults in order, and
    how many charges were computed again."""

    rows: int
    linked: int
    head: str
    faults: tuple[Fault, ...]
    fault_count: int
    charges: ChargeCounts = field(default_factory=ChargeCounts)
    acts: int = 0
    """What administrators did."""

    @property
    def holds(self) -> bool:
        """True if no rule is broken."""
        return not self.fault_count


def verify(ledger: Ledger, noted_head: str = "", noted_act: str = "") -> Verified:
    """Check the ledger, while routers may continue writing. `noted_head` is the head of an earlier verification in hex,
    `noted_act` that of the acts.

    Raises LedgerUnavailableError.
    """
    walk = _Walk(charges=ChargeChecker(ledger.tariffs.texts), missing_head=noted_head.strip().lower())
    if ledger.notice:
        walk.fault("copy", 0, ledger.notice)
    with ledger.checking_sums() as wrong_sums, ThreadPoolExecutor(1, "ledger-checks") as other:
        checked = other.submit(_check_rules, ledger, wrong_sums) if ledger.has_server else None
        walk.read(ledger.canonical())
        walk.check_noted_head()
        acts = _check_acts(ledger, noted_act, walk)
        rules = _check_rules(ledger, wrong_sums) if checked is None else checked.result()
    return Verified(
        rows=walk.rows,
        linked=walk.linked,
        head=walk.link.hex(),
        faults=(*walk.faults, *rules.faults)[:MOST_FAULTS],
        fault_count=walk.fault_count + rules.fault_count,
        charges=walk.charges.counts,
        acts=acts,
    )


@dataclass(slots=True)
class _Faults:
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0

    def fault(self, rule: str, seq: int, detail: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(rule, seq, detail))


@dataclass(slots=True, kw_only=True)
class _Walk(_Faults):
    charges: ChargeChecker
    missing_head: str = ""
    """The noted head in hex, until the chain reaches it."""
    rows: int = 0
    linked: int = 0
    link: bytes = GENESIS

    def read(self, rows: Iterable[Canonical]) -> None:
        """Walk over the rows, of which there may be millions: what all of them need is written out here."""
        link, is_broken, noted = self.link, False, self.missing_head
        for seq, text, stored_link, is_priced, is_adjusted in rows:
            self.rows += 1
            if is_priced:
                self._check_charge(seq, tuple(loads(text)))
            elif is_adjusted:
                self.charges.counts.adjusted += 1
            if not stored_link:
                if self.linked:
                    self.fault("chain", seq, "has no link, though rows before it have")
                continue
            self.linked += 1
            written = text if isinstance(text, bytes) else text.encode()
            if not is_broken and sha256(link + written).digest() != stored_link:  # entries.link_of
                is_broken = True  # reported once, because every later row would repeat it
                message = "doesn't follow from the row before: it was changed, or a row is missing or added"
                self.fault("chain", seq, message)
            link = stored_link
            if noted and link.hex() == noted:
                self.missing_head = noted = ""
        self.link = link

    def _check_charge(self, seq: int, row: Row) -> None:
        flaw = self.charges.flaw(row)
        if flaw is not None:
            self.fault("charges", seq, f"the charge of {row[1]} {flaw}")

    def check_noted_head(self) -> None:
        if self.missing_head:
            message = f"doesn't contain the noted head {self.missing_head}: rows were cut off or rewritten"
            self.fault("chain", 0, message)


def _check_acts(ledger: Ledger, noted_act: str, faults: _Faults) -> int:
    """Check the chain of acts, and that it explains the keys and the rentals; return the number of acts."""
    acts = ledger.acts.all()
    broken = broken_link(acts)
    if broken is not None:
        faults.fault("acts", 0, f"act {broken} doesn't follow from the one before: it was changed, or one is missing")
    if noted_act and all(each.link.hex() != noted_act for each in acts):
        faults.fault("acts", 0, f"the noted act {noted_act} is not there: acts were cut off or rewritten")
    # A router may change something between two looks, so only what stays unexplained is a fault.
    names: set[str] | None = None
    for _ in range(_LOOKS):
        keys, rentals, costs = ledger.keys.all(), ledger.rentals.between(-(2**62), 2**62), ledger.other_costs.all()
        acts = ledger.acts.all()
        now = set(unexplained(acts, keys, rentals, costs))
        names = now if names is None else names & now
        if not names:
            break
    for name in sorted(names or ()):
        faults.fault("acts", 0, f"{name} is not what the acts made of it: it was changed in the database itself")
    return len(acts)


_LOOKS = 3


def _check_rules(ledger: Ledger, wrong_sums: Callable[[], WrongSums]) -> _Faults:
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
        if not balances_agree(checks, open_holds.values(), randbits):
            _check_balances(checks, open_holds, faults)
    for start_ms, name in wrong_sums():
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
_Sums = dict[str, _Nano]
"""By scope."""
_Kept = dict[str, tuple[int, int]]
"""What the database keeps by scope, without zeros: nano-dollars spent, and held."""


def _check_balances(checks: Checks, holds: dict[HoldKey, OpenHold], faults: _Faults) -> None:
    """Compare the balances with the rows, hour by hour, so that there are never more than a day's in memory. That takes
    four times as long as to find that all are right (balance_proof.py)."""
    moves = heapq.merge(
        _held(holds), ((move, move.kept_nano) for move in checks.spent()), key=lambda move: move[0].hour
    )
    by_hour = ((hour, 0, list(group)) for hour, group in groupby(moves, key=lambda move: move[0].hour))
    stored = ((hour, 1, list(group)) for hour, group in groupby(checks.short_balances(), key=_hour_of))
    adder = _Adder(faults)
    for hour, parts in groupby(heapq.merge(by_hour, stored, key=itemgetter(0)), key=itemgetter(0)):
        adder.begin(hour)
        for _, is_stored, content in parts:
            if is_stored:
                adder.keep(cast("list[tuple[BalanceKey, Balance]]", content))
            else:
                adder.add(cast("list[tuple[Spent, int]]", content))
    adder.finish(checks.month_balances())


def _hour_of(stored: tuple[BalanceKey, Balance]) -> int:
    return stored[0][2] // _HOUR_MS


def _held(holds: dict[HoldKey, OpenHold]) -> Iterator[tuple[Spent, int]]:
    """Yield the open holds in the order of their hours, as moves that spend nothing, with the nano-dollars held."""
    for hold in sorted(holds.values(), key=lambda hold: hold.ts):
        move = Spent(hold.ts // _HOUR_MS, *_whose(hold), nano=0)
        yield move, hold.reserved_nano


class _Adder:
    """Adds moves to the scopes in which they count, hour by hour: an hour's sums are added to its day, a day's to its
    month."""

    def __init__(self, faults: _Faults) -> None:
        self._faults = faults
        self._scopes: dict[tuple[str, str, str, str], tuple[str, ...]] = {}
        self._hour = -1
        self._sums: dict[Period, _Sums] = {"hour": {}, "day": {}}
        self._kept: dict[Period, _Kept] = {"hour": {}, "day": {}}
        self._months: dict[int, _Sums] = {}

    def begin(self, hour: int) -> None:
        """Begin an hour; the one before it is compared."""
        self._end_hour()
        if hour // 24 != self._hour // 24:
            self._end_day()
        self._hour = hour

    def add(self, moves: Iterable[tuple[Spent, int]]) -> None:
        """Add the moves of this hour, each with the nano-dollars that it holds."""
        sums = self._sums["hour"]
        for move, held_nano in moves:
            whose = _whose(move)
            scopes = self._scopes.get(whose)
            if scopes is None:
                scopes = tuple(dict.fromkeys(key[0] for key in balance_keys(*whose, 0)))
                self._scopes[whose] = scopes
            for scope in scopes:
                nano = sums.get(scope)
                if nano is None:
                    sums[scope] = [move.nano, held_nano]
                else:
                    nano[0] += move.nano
                    nano[1] += held_nano

    def keep(self, balances: Iterable[tuple[BalanceKey, Balance]]) -> None:
        """Note the balances that the database keeps of this hour, or of the day that begins with it."""
        for (scope, period, _), balance in balances:
            self._kept[period][scope] = (balance.spent_nano, balance.reserved_nano)

    def finish(self, months: Iterable[tuple[BalanceKey, Balance]]) -> None:
        """Compare what is left, and the months."""
        self._end_hour()
        self._end_day()
        kept: dict[int, _Kept] = defaultdict(dict)
        for (scope, _, start_ms), balance in months:
            kept[start_ms][scope] = (balance.spent_nano, balance.reserved_nano)
        for start_ms in sorted(kept.keys() | self._months.keys()):
            _compare("month", start_ms, self._months.get(start_ms, {}), kept.get(start_ms, {}), faults=self._faults)

    def _end_hour(self) -> None:
        self._end("hour", self._hour * _HOUR_MS, self._sums["day"])

    def _end_day(self) -> None:
        day_ms = self._hour // 24 * DAY_MS
        month_ms = period_start("month", max(0, day_ms // 1000)) * 1000
        self._end("day", day_ms, self._months.setdefault(month_ms, {}))

    def _end(self, period: Period, start_ms: int, longer: _Sums) -> None:
        sums, kept = self._sums[period], self._kept[period]
        if not sums and not kept:
            return
        _compare(period, start_ms, sums, kept, faults=self._faults)
        for scope, (spent_nano, held_nano) in sums.items():
            nano = longer.get(scope)
            if nano is None:
                longer[scope] = [spent_nano, held_nano]
            else:
                nano[0] += spent_nano
                nano[1] += held_nano
        self._sums[period], self._kept[period] = {}, {}


def _whose(of: Spent | OpenHold) -> tuple[str, str, str, str]:
    return of.backend, of.key_id, of.tier, of.user_id


def _compare(period: Period, start_ms: int, sums: _Sums, kept: _Kept, *, faults: _Faults) -> None:
    expected = {scope: (nano[0], nano[1]) for scope, nano in sums.items() if nano[0] or nano[1]}
    if expected == kept:
        return
    for scope in sorted(kept.keys() | expected.keys()):
        actual, right = kept.get(scope, (0, 0)), expected.get(scope, (0, 0))
        if actual != right:
            faults.fault(
                "balances",
                0,
                f"{scope} in the {period} from {start_ms} ms: stored {actual[0]} nano-USD spent + "
                f"{actual[1]} held, the rows say {right[0]} + {right[1]}",
            )
