"""Posting: what entries do to holds and balances. Pure, and the same for every ledger.

A ledger creates one `Posting` per transaction, gives it what is stored (open holds, balances), and reads from it what
to store. Balances exist for the scopes all, backend:NAME, key:ID, tier:NAME and user:ID, each per hour, day and month:

    reserved   adds `reserved_nano` to the reserved money in the periods of its `ts`, and opens the attempt's hold
    charged    releases the hold in the periods in which it was taken and spends `amount_nano` in the same periods;
               without a hold it spends in the periods of its own `ts`. Of a call whose cost is an estimate,
               `reserved_nano` stays reserved
    released   releases the hold
    adjusted   spends `amount_nano` (signed) in the periods of the attempt's reserved entry, else of its own `ts`, and
               gives back the `reserved_nano` that the charge kept

Rows of fixed cost (entries.FIXED) belong to no budget. A row without a price and an amount that is local, or of the
cache, can neither open nor close a hold: `is_plain` recognises such rows, which need no posting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from spillway_router.core.money.budget import Period, period_start
from spillway_router.ledger.entries import CACHE, FIXED, Entry
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError
from spillway_router.ledger.records import Balance, BalanceKey, Cap, CapReached, Write, WriteResult

HoldKey = tuple[str, int]
"""Request id and attempt number."""

_Group = tuple[str, str, str, str, int]
"""Backend, key id, tier, user id, and hours since the epoch. Entries of one group move the same balances."""

PERIODS: tuple[Period, ...] = ("hour", "day", "month")
_HOUR_MS = 3_600_000


class OpenHold(NamedTuple):
    """An open reservation: nano-dollars, when it was taken (epoch ms), and whose budgets it counts against."""

    reserved_nano: int
    ts: int
    backend: str
    key_id: str
    tier: str
    router_id: str
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a posting must know of the database, for all of its entries; the `needs_*` functions say which keys.

    `holds` are the open ones. `reserved_ts` are the times of reserved entries, open or closed, of adjusted attempts.
    `closed` are the attempts that are charged or released already. `balances` are those of the caps, absent where zero.
    """

    holds: Mapping[HoldKey, OpenHold]
    reserved_ts: Mapping[HoldKey, int]
    closed: Set[HoldKey]
    balances: Mapping[BalanceKey, Balance]


def is_plain(entry: Entry) -> bool:
    """Return whether the entry touches no hold and no balance."""
    if entry.kind == "charged":
        return (entry.local or entry.backend == CACHE) and not entry.amount_nano and not entry.tariff_ref
    return entry.kind in FIXED


class Posting:
    """The holds and balances of one transaction. Call `post` for each write in order; then store `deltas`, `opened` and
    `closed`."""

    __slots__ = ("_groups", "_stored", "_taken_nano", "closed", "opened")

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        # Many entries move the same twelve balances, so moves are first summed per group. Only the balances that caps
        # ask for are kept up to date one by one.
        self._groups: dict[_Group, _Moves] = {}
        self._taken_nano: dict[BalanceKey, int] = {}
        self.opened: dict[HoldKey, OpenHold] = {}
        self.closed: set[HoldKey] = set()

    def post(self, write: Write) -> WriteResult:
        """Post a write that is not stored yet; if it is refused, nothing of it is posted."""
        moving = [entry for entry in write.entries if not is_plain(entry)]
        refusal = self._refusal(moving, write.caps)
        if refusal is not None:
            return refusal
        for entry in moving:
            self._post(entry)
        return None

    @property
    def deltas(self) -> dict[BalanceKey, tuple[int, int]]:
        """Spent and reserved nano-dollars to add to each balance that changes."""
        sums: dict[BalanceKey, tuple[int, int]] = {}
        for group, moves in self._groups.items():
            for key in _balance_keys(*group):
                spent_nano, reserved_nano = sums.get(key, (0, 0))
                sums[key] = (spent_nano + moves.spent_nano, reserved_nano + moves.reserved_nano)
        return {key: delta for key, delta in sums.items() if any(delta)}

    def balance_rows(self) -> Iterator[tuple[str, Period, int, int, int]]:
        """Yield the changed balances as rows: the key, and the spent and reserved nano-dollars to add."""
        for key, (spent_nano, reserved_nano) in self.deltas.items():
            yield (*key, spent_nano, reserved_nano)

    def _refusal(self, moving: Sequence[Entry], caps: Sequence[Cap]) -> WriteResult:
        bound_nano = 0
        ending: set[HoldKey] = set()
        for entry in moving:
            kind = entry.kind
            if kind == "reserved":
                bound_nano += entry.reserved_nano
                if entry.local and not entry.tariff_ref:
                    return EntryRejectedError(f"a local attempt without a price can't hold money ({entry.request_id})")
            elif kind != "adjusted":
                key = (entry.request_id, entry.attempt_no)
                if key in self.closed or key in self._stored.closed or key in ending:
                    return already_closed(entry)
                if len(moving) > 1:
                    ending.add(key)
        for cap in caps if bound_nano else ():  # what costs nothing passes, even where more than the cap was spent
            taken_nano = self._taken_nano_of((cap.scope, cap.period, cap.start_ms))
            if taken_nano + bound_nano > cap.limit_nano:
                return CapReached(cap, taken_nano)
        return None

    def _taken_nano_of(self, key: BalanceKey) -> int:
        taken_nano = self._taken_nano.get(key)
        if taken_nano is None:
            stored = self._stored.balances.get(key)
            taken_nano = 0 if stored is None else stored.spent_nano + stored.reserved_nano
            for group, moves in self._groups.items():
                if key in _balance_keys(*group):
                    moves.capped.append(key)
                    taken_nano += moves.spent_nano + moves.reserved_nano
            self._taken_nano[key] = taken_nano
        return taken_nano

    def _post(self, entry: Entry) -> None:
        key = (entry.request_id, entry.attempt_no)
        if entry.kind == "reserved":
            hold = OpenHold(
                reserved_nano=entry.reserved_nano,
                ts=entry.ts,
                backend=entry.backend,
                key_id=entry.key_id,
                tier=entry.tier,
                router_id=entry.router_id,
                user_id=entry.user_id,
            )
            self.opened[key] = hold
            self._add(hold, hold.ts, 0, hold.reserved_nano)
            return
        if entry.kind == "adjusted":
            new_hold = self.opened.get(key)
            ts = new_hold.ts if new_hold is not None else self._stored.reserved_ts.get(key, entry.ts)
            self._add(entry, ts, entry.amount_nano, -entry.reserved_nano)
            return
        open_hold = self.opened.get(key) or self._stored.holds.get(key)
        self.closed.add(key)
        if open_hold is None:
            self._add(entry, entry.ts, entry.amount_nano, entry.reserved_nano)
            return
        self._add(open_hold, open_hold.ts, 0, -open_hold.reserved_nano)
        self._add(entry, open_hold.ts, entry.amount_nano, entry.reserved_nano)

    def _add(self, whose: Entry | OpenHold, ts: int, spent_nano: int, reserved_nano: int) -> None:
        group = (whose.backend, whose.key_id, whose.tier, whose.user_id, ts // _HOUR_MS)
        moves = self._groups.get(group)
        if moves is None:
            capped = [key for key in _balance_keys(*group) if key in self._taken_nano]
            moves = self._groups[group] = _Moves(capped)
        moves.spent_nano += spent_nano
        moves.reserved_nano += reserved_nano
        for key in moves.capped:
            self._taken_nano[key] += spent_nano + reserved_nano


class _Moves:
    """The money that a group of entries moves, and which of its balances have a cap in this transaction."""

    __slots__ = ("capped", "reserved_nano", "spent_nano")

    def __init__(self, capped: list[BalanceKey]) -> None:
        self.spent_nano = 0
        self.reserved_nano = 0
        self.capped = capped


def already_closed(entry: Entry) -> EntryConflictError:
    """Return the error for an entry whose attempt was charged or released before."""
    return EntryConflictError(
        f"attempt {entry.attempt_no} of {entry.request_id} is charged or released already; "
        f"its {entry.kind} entry was not stored"
    )


def conflicting(entry: Entry) -> EntryConflictError:
    """Return the error for an entry whose key is stored with other content."""
    return EntryConflictError(
        f"the {entry.kind} entry of attempt {entry.attempt_no} of {entry.request_id} exists with other content"
    )


def balance_keys(backend: str, key_id: str, tier: str, user_id: str, ts: int) -> tuple[BalanceKey, ...]:
    """Return the balances that an attempt counts in: its scopes in the hour, day and month of `ts` (epoch ms)."""
    return _balance_keys(backend, key_id, tier, user_id, ts // _HOUR_MS)


@lru_cache(maxsize=1024)
def _balance_keys(backend: str, key_id: str, tier: str, user_id: str, hour: int) -> tuple[BalanceKey, ...]:
    scopes = ["all", f"backend:{backend}"] if backend else ["all"]
    scopes += [f"key:{key_id}"] if key_id else []
    scopes += [f"tier:{tier}"] if tier else []
    scopes += [f"user:{user_id}"] if user_id else []
    seconds = hour * (_HOUR_MS // 1000)
    starts_ms = [(period, period_start(period, seconds) * 1000) for period in PERIODS]
    return tuple((scope, period, start_ms) for scope in scopes for period, start_ms in starts_ms)


def needs_holds(entries: Iterable[Entry]) -> list[HoldKey]:
    """Return the attempts that `Stored.holds` and `Stored.closed` must cover: those that an entry closes."""
    return [(e.request_id, e.attempt_no) for e in entries if e.kind in ("charged", "released") and not is_plain(e)]


def needs_reserved(entries: Iterable[Entry]) -> list[HoldKey]:
    """Return the attempts that `Stored.reserved_ts` must cover: those that an entry adjusts."""
    return [(e.request_id, e.attempt_no) for e in entries if e.kind == "adjusted"]
