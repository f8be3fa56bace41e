"""Verify that the ledger still is what was written: walk all rows once and check the rules that must hold.

    chain        every row's link follows from the previous row and its own content (entries.link_of); a row that was
                 changed, removed or inserted breaks the chain, and the report names the first such row
    amounts      only adjustments have negative amounts or counts
    closing      an attempt is charged or released at most once, and a hold is closed after it was opened
    answers      at most one row of a request says that it was answered
    balances     the balances against which caps are checked are the sums of the rows
    open holds   the open reservations are the reserved rows that no other row closes
    idle time    the unused part of a day's rent is at most the rent: Used + Unused = Billed

Rows from before the chain (in an upgraded database) have no link; they may only precede all others. The chain alone
can't show that its last rows were cut off or that it was rewritten from some row on. Note its head (`Verified.head`)
elsewhere and pass it to a later verification, which reports whether the chain still contains it.
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
    """Walk the ledger, while routers may continue writing. `noted_head` is the head of an earlier verification, in hex.

    Raises LedgerUnavailableError.
    """
    walk = _Walk(noted_head.strip().lower())
    walk.read_new_rows(ledger)
    # Balances and rows can't be read at the same moment, so read on until nothing was written in between.
    for _ in range(_MOST_TRIES):
        stored = ledger.balances()
        holds = {(e.request_id, e.attempt_no) for e in ledger.open_reservations(-(2**63), 2**63 - 1)}
        if not walk.read_new_rows(ledger):
            break
    walk.check_noted_head()
    walk.check_answers(ledger)
    walk.check_idle_time()
    walk.check_balances(stored)
    walk.check_open_holds(holds)
    return walk.outcome()


@dataclass(slots=True)
class _Walk:
    missing_head: str
    """The noted head in hex, until the chain reaches it."""
    rows: int = 0
    last_seq: int = 0
    linked: int = 0
    link: bytes = GENESIS
    broken: bool = False
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0
    holds: dict[HoldKey, Entry] = field(default_factory=dict)
    reserved_ts: dict[HoldKey, int] = field(default_factory=dict)
    sums_nano: dict[BalanceKey, list[int]] = field(default_factory=dict)
    """Per balance: nano-dollars spent, and reserved."""
    answered_late: set[str] = field(default_factory=set)
    """Requests that an attempt after the first answered; only these can be answered twice."""
    rent_nano: dict[int, list[int]] = field(default_factory=dict)
    """Per day since the epoch: nano-dollars billed, and idle."""

    def fault(self, rule: str, seq: int, detail: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(rule, seq, detail))

    def read_new_rows(self, ledger: Ledger) -> int:
        """Walk the rows that were not read yet; return their number."""
        before = self.rows
        for linked in ledger.chain(self.last_seq):
            self._read(linked)
        return self.rows - before

    def _read(self, linked: Linked) -> None:
        self.rows += 1
        self.last_seq = linked.seq
        self._check_link(linked)
        entry = entry_of(linked.row)
        self._check_amounts(linked.seq, entry)
        if entry.kind == "reserved":
            self._add_hold(linked.seq, entry)
        elif entry.kind in ("charged", "released", "adjusted"):
            self._add_charge(linked.seq, entry)
        elif entry.kind in ("gpu_hour", "idle"):
            of_day = self.rent_nano.setdefault(entry.ts // DAY_MS, [0, 0])
            of_day[entry.kind == "idle"] += entry.amount_nano

    def _check_link(self, linked: Linked) -> None:
        if not linked.link:
            if self.linked:
                self.fault("chain", linked.seq, "has no link, though rows before it have")
            return
        self.linked += 1
        expected = link_of(self.link, linked.row)
        if expected != linked.link and not self.broken:
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

    def _check_amounts(self, seq: int, entry: Entry) -> None:
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

    def _add_hold(self, seq: int, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        if key in self.reserved_ts:
            self.fault("closing", seq, f"{_name(entry)} exists twice")
        self.holds[key] = entry
        self.reserved_ts[key] = entry.ts
        self._add(entry, entry.ts, 0, entry.reserved_nano)

    def _add_charge(self, seq: int, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        ts = self.reserved_ts.get(key, entry.ts)
        if entry.kind != "adjusted":
            hold = self.holds.pop(key, None)
            if hold is not None:
                self._add(hold, hold.ts, 0, -hold.reserved_nano)
            elif key in self.reserved_ts:
                self.fault("closing", seq, f"{_name(entry)} closes a hold that is closed already")
            if entry.attempt_no != 1 and entry.status in ANSWERED:
                self.answered_late.add(entry.request_id)
        if entry.amount_nano:
            self._add(entry, ts, entry.amount_nano, 0)

    def _add(self, whose: Entry, ts: int, spent_nano: int, reserved_nano: int) -> None:
        for key in balance_keys(whose.backend, whose.key_id, whose.tier, ts):
            sums_nano = self.sums_nano.setdefault(key, [0, 0])
            sums_nano[0] += spent_nano
            sums_nano[1] += reserved_nano

    def check_answers(self, ledger: Ledger) -> None:
        for request_id in sorted(self.answered_late):
            answered = [e for e in ledger.entries_of(request_id) if e.kind == "charged" and e.status in ANSWERED]
            if len(answered) > 1:
                attempts = ", ".join(str(e.attempt_no) for e in answered)
                self.fault("answers", 0, f"request {request_id} was answered by several attempts: {attempts}")

    def check_idle_time(self) -> None:
        for day, (billed_nano, idle_nano) in sorted(self.rent_nano.items()):
            if idle_nano > billed_nano:
                message = f"{day_of(day * DAY_MS)}: {idle_nano} nano-USD unused of {billed_nano} billed"
                self.fault("idle time", 0, message)

    def check_balances(self, stored: Mapping[BalanceKey, Balance]) -> None:
        summed = {key: Balance(*nano) for key, nano in self.sums_nano.items() if any(nano)}
        for key in sorted(stored.keys() | summed.keys()):
            actual, expected = stored.get(key, Balance(0, 0)), summed.get(key, Balance(0, 0))
            if actual != expected:
                scope, period, start_ms = key
                self.fault(
                    "balances",
                    0,
                    f"{scope} in the {period} from {start_ms} ms: stored {actual.spent_nano} nano-USD spent + "
                    f"{actual.reserved_nano} held, the rows say {expected.spent_nano} + {expected.reserved_nano}",
                )

    def check_open_holds(self, stored: set[HoldKey]) -> None:
        for request_id, attempt_no in sorted(stored ^ self.holds.keys()):
            self.fault("open holds", 0, f"attempt {attempt_no} of {request_id}: the table and the rows disagree")

    def outcome(self) -> Verified:
        return Verified(
            rows=self.rows,
            linked=self.linked,
            head=self.link.hex(),
            faults=tuple(self.faults),
            fault_count=self.fault_count,
        )


def _name(entry: Entry) -> str:
    return f"{entry.kind} of attempt {entry.attempt_no} of {entry.request_id}"
