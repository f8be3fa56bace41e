"""Posting: what entries do to holds and balances. Pure, and the same for every ledger.

A ledger makes one `Posting` per transaction, gives it what is stored (open holds, balances) and takes from it what to
store. Balances are kept for the scopes all, backend:NAME, key:ID and tier:NAME, each per hour, day and month:

    reserved   + its amount on hold, in the periods of its `ts`; the attempt's hold is open
    charged    the hold is given back in the periods it was taken in, and the amount is spent in these; without a hold
               it is spent in the periods of its own `ts`
    released   the hold is given back
    adjusted   its amount (signed) is spent in the periods of the attempt's reserved entry, else of its own `ts`

`gpu_hour` and `idle` rows are fixed cost and belong to no budget. A local row without price and amount can neither open
nor close a hold: `is_plain` says so, and such a row needs nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import Period, period_start
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError
from spillway_router.ledger.records import Balance, BalanceKey, Cap, CapReached, Write, WriteResult

HoldKey = tuple[str, int]
"""Request id and attempt number."""

_Group = tuple[str, str, str, int]
"""Backend, key id, tier, and the hour since the epoch: entries that move the same balances."""

PERIODS: tuple[Period, ...] = ("hour", "day", "month")
_HOUR_MS = 3_600_000


class OpenHold(NamedTuple):
    """An open reservation: nano-dollars, when it was taken (epoch ms), and whose budgets it is on."""

    reserved_nano: int
    ts: int
    backend: str
    key_id: str
    tier: str
    router_id: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What a posting must know of the database, for all its entries: see the `needs_*` functions.

    `holds` open ones; `reserved_ts` of reserved entries, open or closed, of adjusted attempts; `closed` attempts that
    are charged or released already; `balances` of the caps, absent where zero.
    """

    holds: Mapping[HoldKey, OpenHold]
    reserved_ts: Mapping[HoldKey, int]
    closed: Set[HoldKey]
    balances: Mapping[BalanceKey, Balance]


def is_plain(entry: Entry) -> bool:
    """True if the entry touches no hold and no balance."""
    if entry.kind == "charged":
        return entry.local and not entry.amount_nano and not entry.tariff_ref
    return entry.kind in ("gpu_hour", "idle")


class Posting:
    """Holds and balances of one transaction. `post` writes in order; then store `deltas`, `opened` and `closed`."""

    __slots__ = ("_groups", "_stored", "_taken", "closed", "opened")

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        # Many entries move the same twelve balances, so moves are summed per group first; only what the caps ask for is
        # kept up to date per balance.
        self._groups: dict[_Group, _Moves] = {}
        self._taken: dict[BalanceKey, int] = {}
        self.opened: dict[HoldKey, OpenHold] = {}
        self.closed: set[HoldKey] = set()

    def post(self, write: Write) -> WriteResult:
        """Post a write that is not stored yet; nothing of it if it can't be."""
        moving = [entry for entry in write.entries if not is_plain(entry)]
        refused = self._refused(moving, write.caps)
        if refused is not None:
            return refused
        for entry in moving:
            self._post(entry)
        return None

    @property
    def deltas(self) -> dict[BalanceKey, tuple[int, int]]:
        """Spent and reserved nano-dollars to add to each balance; only those that change."""
        found: dict[BalanceKey, tuple[int, int]] = {}
        for group, moves in self._groups.items():
            for key in _balance_keys(*group):
                spent, reserved = found.get(key, (0, 0))
                found[key] = (spent + moves.spent, reserved + moves.reserved)
        return {key: moved for key, moved in found.items() if any(moved)}

    def balance_rows(self) -> Iterator[tuple[str, Period, int, int, int]]:
        """The changed balances as rows: key, spent and reserved nano-dollars to add."""
        for key, (spent, reserved) in self.deltas.items():
            yield (*key, spent, reserved)

    def _refused(self, moving: Sequence[Entry], caps: Sequence[Cap]) -> WriteResult:
        wanted = 0
        ending: set[HoldKey] = set()
        for entry in moving:
            kind = entry.kind
            if kind == "reserved":
                wanted += entry.reserved_nano
                if entry.local and not entry.tariff_ref:
                    return EntryRejectedError(f"a local attempt without a price holds no money ({entry.request_id})")
            elif kind != "adjusted":
                key = (entry.request_id, entry.attempt_no)
                if key in self.closed or key in self._stored.closed or key in ending:
                    return already_closed(entry)
                if len(moving) > 1:
                    ending.add(key)
        for cap in caps:
            taken = self._taken_of((cap.scope, cap.period, cap.start_ms))
            if taken + wanted > cap.limit_nano:
                return CapReached(cap, taken)
        return None

    def _taken_of(self, key: BalanceKey) -> int:
        taken = self._taken.get(key)
        if taken is None:
            stored = self._stored.balances.get(key)
            taken = 0 if stored is None else stored.spent_nano + stored.reserved_nano
            for group, moves in self._groups.items():
                if key in _balance_keys(*group):
                    moves.capped.append(key)
                    taken += moves.spent + moves.reserved
            self._taken[key] = taken
        return taken

    def _post(self, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        if entry.kind == "reserved":
            hold = OpenHold(entry.reserved_nano, entry.ts, entry.backend, entry.key_id, entry.tier, entry.router_id)
            self.opened[key] = hold
            self._add(hold, hold.ts, 0, hold.reserved_nano)
            return
        if entry.kind == "adjusted":
            own = self.opened.get(key)
            ts = own.ts if own is not None else self._stored.reserved_ts.get(key, entry.ts)
            self._add(entry, ts, entry.amount_nano, 0)
            return
        hold_now = self.opened.get(key) or self._stored.holds.get(key)
        self.closed.add(key)
        if hold_now is None:
            self._add(entry, entry.ts, entry.amount_nano, 0)
            return
        self._add(hold_now, hold_now.ts, 0, -hold_now.reserved_nano)
        self._add(entry, hold_now.ts, entry.amount_nano, 0)

    def _add(self, whose: Entry | OpenHold, ts: int, spent: int, reserved: int) -> None:
        group = (whose.backend, whose.key_id, whose.tier, ts // _HOUR_MS)
        moves = self._groups.get(group)
        if moves is None:
            capped = [key for key in _balance_keys(*group) if key in self._taken]
            moves = self._groups[group] = _Moves(capped)
        moves.spent += spent
        moves.reserved += reserved
        for key in moves.capped:
            self._taken[key] += spent + reserved


class _Moves:
    """What a group of entries moves, and which of its balances are under a cap in this transaction."""

    __slots__ = ("capped", "reserved", "spent")

    def __init__(self, capped: list[BalanceKey]) -> None:
        self.spent = 0
        self.reserved = 0
        self.capped = capped


def already_closed(entry: Entry) -> EntryConflictError:
    """The error for an entry whose attempt was charged or released before."""
    return EntryConflictError(
        f"attempt {entry.attempt_no} of {entry.request_id} is charged or released already; {entry.kind} was not stored"
    )


def conflicting(entry: Entry) -> EntryConflictError:
    """The error for an entry whose key is taken by another content."""
    return EntryConflictError(
        f"{entry.kind} of attempt {entry.attempt_no} of {entry.request_id} is already there with other content"
    )


def balance_keys(backend: str, key_id: str, tier: str, ts: int) -> tuple[BalanceKey, ...]:
    """The balances that an attempt is on: its scopes in the hour, day and month of `ts` (epoch ms)."""
    return _balance_keys(backend, key_id, tier, ts // _HOUR_MS)


@lru_cache(maxsize=1024)
def _balance_keys(backend: str, key_id: str, tier: str, hour: int) -> tuple[BalanceKey, ...]:
    scopes = ["all", f"backend:{backend}"] if backend else ["all"]
    scopes += [f"key:{key_id}"] if key_id else []
    scopes += [f"tier:{tier}"] if tier else []
    seconds = hour * (_HOUR_MS // 1000)
    starts = [(period, period_start(period, seconds) * 1000) for period in PERIODS]
    return tuple((scope, period, start) for scope in scopes for period, start in starts)


def needs_holds(entries: Iterable[Entry]) -> list[HoldKey]:
    """Attempts of which `Stored.holds` and `Stored.closed` must tell: those that an entry closes."""
    return [(e.request_id, e.attempt_no) for e in entries if e.kind in ("charged", "released") and not is_plain(e)]


def needs_reserved(entries: Iterable[Entry]) -> list[HoldKey]:
    """Attempts of which `Stored.reserved_ts` must tell: those that an entry adjusts."""
    return [(e.request_id, e.attempt_no) for e in entries if e.kind == "adjusted"]
