"""Is the ledger what it was when it was written? Walks all rows once and checks what must hold.

    chain        every row's link follows from the row before and its own content (entries.link_of): a row that was
                 changed, removed or slipped in breaks it there, and the first such row is named
    amounts      nothing but an adjustment is negative, and no hold or token count is
    closing      an attempt is charged or released at most once, and a hold is closed after it was opened
    answers      at most one row of a request says that it was answered
    balances     the balances that caps are judged by are the sums of the rows
    open holds   the open reservations are the reserved rows that nothing closes

    idle time    no day's unused part of the rent is more than the rent: Used + Unused = Billed

Rows from before the chain (an upgraded database) have no link; they may only come before all others. A chain alone
can't show that its last rows were cut off or that it was written anew from some row on: note the head (`Verified.head`)
outside, and give it at a later look, which says whether the chain still goes through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spillway_router.ledger.calendar import DAY_MS, day_of
from spillway_router.ledger.entries import ANSWERED, GENESIS, Entry, entry_of, link_of
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.posting import HoldKey, balance_keys
from spillway_router.ledger.records import Balance, BalanceKey, Linked

_MOST_TRIES = 100
MOST_FAULTS = 20
"""So many are named; all are counted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that is broken, at a row where there is one: `seq` is its place in the order of writing, 0 for none."""

    rule: str
    seq: int
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found: rows read, how many are linked, the chain's last link in hex, and the faults in order."""

    rows: int
    linked: int
    head: str
    faults: tuple[Fault, ...]
    fault_count: int

    @property
    def holds(self) -> bool:
        """True if nothing is wrong."""
        return not self.fault_count


def verify(ledger: Ledger, noted_head: str = "") -> Verified:
    """Walk the ledger; routers may go on writing. `noted_head`: the head of an earlier look, in hex.

    Raises LedgerUnavailableError.
    """
    walk = _Walk(noted_head.strip().lower())
    walk.on(ledger)
    # Balances and rows can't be read in one moment: read on until nothing was written in between.
    for _ in range(_MOST_TRIES):
        stored = ledger.balances()
        holds = {(e.request_id, e.attempt_no) for e in ledger.open_reservations(-(2**63), 2**63 - 1)}
        if not walk.on(ledger):
            break
    walk.noted()
    walk.answers(ledger)
    walk.idle_time()
    walk.balances(stored)
    walk.open_holds(holds)
    return walk.verified()


@dataclass(slots=True)
class _Walk:
    head: str
    rows: int = 0
    last_seq: int = 0
    linked: int = 0
    link: bytes = GENESIS
    broken: bool = False
    faults: list[Fault] = field(default_factory=list)
    count: int = 0
    holds: dict[HoldKey, Entry] = field(default_factory=dict)
    reserved_ts: dict[HoldKey, int] = field(default_factory=dict)
    sums: dict[BalanceKey, list[int]] = field(default_factory=dict)
    several: set[str] = field(default_factory=set)
    rent: dict[int, list[int]] = field(default_factory=dict)

    def fault(self, rule: str, seq: int, detail: str) -> None:
        self.count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(rule, seq, detail))

    def on(self, ledger: Ledger) -> int:
        """Walk the rows that were not walked yet; returns how many."""
        before = self.rows
        for linked in ledger.chain(self.last_seq):
            self.row(linked)
        return self.rows - before

    def row(self, linked: Linked) -> None:
        self.rows += 1
        self.last_seq = linked.seq
        self._chain(linked)
        entry = entry_of(linked.row)
        self._amounts(linked.seq, entry)
        if entry.kind == "reserved":
            self._opened(linked.seq, entry)
        elif entry.kind in ("charged", "released", "adjusted"):
            self._moved(linked.seq, entry)
        elif entry.kind in ("gpu_hour", "idle"):
            of_day = self.rent.setdefault(entry.ts // DAY_MS, [0, 0])
            of_day[entry.kind == "idle"] += entry.amount_nano

    def _chain(self, linked: Linked) -> None:
        if not linked.link:
            if self.linked:
                self.fault("chain", linked.seq, "has no link, though rows before it have")
            return
        self.linked += 1
        expected = link_of(self.link, linked.row)
        if expected != linked.link and not self.broken:
            self.broken = True  # told once: every later row would only say it again
            self.fault("chain", linked.seq, "doesn't follow from the row before: changed, or a row is missing or added")
        self.link = linked.link
        if self.head and linked.link.hex() == self.head:
            self.head = ""

    def noted(self) -> None:
        if self.head:
            self.fault("chain", 0, f"doesn't go through the noted head {self.head}: rows were cut off or written anew")

    def _amounts(self, seq: int, entry: Entry) -> None:
        counts = (
            entry.amount_nano,
            entry.reserved_nano,
            entry.prompt_tokens,
            entry.completion_tokens,
            entry.cached_tokens,
            entry.reasoning_tokens,
            entry.gpu_us,
        )
        if entry.kind != "adjusted" and min(counts) < 0:
            self.fault("amounts", seq, f"{_name(entry)} has a negative amount or count")

    def _opened(self, seq: int, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        if key in self.reserved_ts:
            self.fault("closing", seq, f"{_name(entry)} is there twice")
        self.holds[key] = entry
        self.reserved_ts[key] = entry.ts
        self._add(entry, entry.ts, 0, entry.reserved_nano)

    def _moved(self, seq: int, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        ts = self.reserved_ts.get(key, entry.ts)
        if entry.kind != "adjusted":
            hold = self.holds.pop(key, None)
            if hold is not None:
                self._add(hold, hold.ts, 0, -hold.reserved_nano)
            elif key in self.reserved_ts:
                self.fault("closing", seq, f"{_name(entry)} closes a hold that is closed already")
            if entry.attempt_no != 1 and entry.status in ANSWERED:
                self.several.add(entry.request_id)
        if entry.amount_nano:
            self._add(entry, ts, entry.amount_nano, 0)

    def _add(self, whose: Entry, ts: int, spent: int, reserved: int) -> None:
        for key in balance_keys(whose.backend, whose.key_id, whose.tier, ts):
            sums = self.sums.setdefault(key, [0, 0])
            sums[0] += spent
            sums[1] += reserved

    def answers(self, ledger: Ledger) -> None:
        for request_id in sorted(self.several):
            answered = [e for e in ledger.entries_of(request_id) if e.kind == "charged" and e.status in ANSWERED]
            if len(answered) > 1:
                attempts = ", ".join(str(e.attempt_no) for e in answered)
                self.fault("answers", 0, f"request {request_id} was answered by several attempts: {attempts}")

    def idle_time(self) -> None:
        for day, (billed, idle) in sorted(self.rent.items()):
            if idle > billed:
                self.fault("idle time", 0, f"{day_of(day * DAY_MS)}: {idle} nano-USD unused of {billed} billed")

    def balances(self, stored: Mapping[BalanceKey, Balance]) -> None:
        summed = {key: Balance(*sums) for key, sums in self.sums.items() if any(sums)}
        for key in sorted(stored.keys() | summed.keys()):
            has, should = stored.get(key, Balance(0, 0)), summed.get(key, Balance(0, 0))
            if has != should:
                scope, period, start = key
                self.fault(
                    "balances",
                    0,
                    f"{scope} in the {period} from {start} ms: stored {has.spent_nano} nano-USD spent + "
                    f"{has.reserved_nano} held, the rows say {should.spent_nano} + {should.reserved_nano}",
                )

    def open_holds(self, stored: set[HoldKey]) -> None:
        for request_id, attempt_no in sorted(stored ^ self.holds.keys()):
            self.fault("open holds", 0, f"attempt {attempt_no} of {request_id}: the table and the rows disagree")

    def verified(self) -> Verified:
        return Verified(self.rows, self.linked, self.link.hex(), tuple(self.faults), self.count)


def _name(entry: Entry) -> str:
    return f"{entry.kind} of attempt {entry.attempt_no} of {entry.request_id}"
