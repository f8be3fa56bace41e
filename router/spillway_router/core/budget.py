"""Budgets: caps on cloud spend per period, held by reserving the upper bound before a call leaves.

    try_reserve   holds the bound on every line that covers the call, or refuses and says which and why
    settle        replaces the hold by what the call cost
    release       gives the hold back (the call was never sent, or cost nothing)

On every line `reserved + spent <= limit` at all times, as long as no call costs more than its bound. If a
provider bills more, `settle` records the truth and the line refuses everything until its period ends. A
hold belongs to the period in which it was taken: settling it later changes nothing in the period that runs
by then.

Pure: states are values, time is an argument (epoch seconds, UTC). If time goes back, the later period stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal, get_args

Period = Literal["hour", "day", "month"]
LineKey = tuple[str, Period]

_SECONDS: dict[Period, int] = {"hour": 3600, "day": 86400}
_SCOPE_KINDS = ("backend", "key", "tier")


class BudgetError(ValueError):
    """A budget line that can't be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One cap. `scope`: all | backend:NAME | key:ID | tier:NAME; `limit_nano` nano-dollars; `alert_at`
    shares of it."""

    scope: str
    period: Period
    limit_nano: int
    alert_at: tuple[Decimal, ...] = ()

    def __post_init__(self) -> None:
        check_scope(self.scope)
        if self.period not in get_args(Period):
            raise BudgetError(f"budget period is {self.period!r}; use hour, day or month")
        if self.limit_nano < 0:
            raise BudgetError(f"budget limit for {self.scope} is negative; use 0 to forbid spending")
        if any(not 0 < share <= 1 for share in self.alert_at):
            raise BudgetError(f"alert_at for {self.scope} must hold shares above 0 and up to 1, such as 0.8")

    @property
    def key(self) -> LineKey:
        """Identity of the line: two lines of one scope and period would be one."""
        return (self.scope, self.period)


@dataclass(frozen=True, slots=True)
class Spender:
    """Who spends where: what scopes are matched against."""

    backend: str
    key_id: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True)
class LineBalance:
    """One line in its current period: start (epoch seconds), nano-dollars spent and held."""

    period_start: int
    spent: int = 0
    reserved: int = 0

    @property
    def taken(self) -> int:
        """Nano-dollars no longer free: spent or held."""
        return self.spent + self.reserved


@dataclass(frozen=True, slots=True)
class Reservation:
    """A hold of `amount_nano` on each line in `holds` (line key, start of the period it was taken in)."""

    id: int
    amount_nano: int
    holds: tuple[tuple[LineKey, int], ...]


@dataclass(frozen=True, slots=True)
class BudgetRefused:
    """The call would pass a limit: the line with the least room, in nano-dollars, and when its period ends
    (epoch s)."""

    scope: str
    period: Period
    limit_nano: int
    taken_nano: int
    requested_nano: int
    resets_at: int


@dataclass(frozen=True, slots=True)
class BudgetAlert:
    """A threshold that a line has just passed: share `at` of `limit_nano` with `taken_nano` spent or held.

    `(scope, period, period_start, at)` identifies it, so that whoever tells people does it once a period.
    """

    scope: str
    period: Period
    period_start: int
    at: Decimal
    limit_nano: int
    taken_nano: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """All lines with their balances and the ids of open holds. Make it with `opening`."""

    lines: tuple[BudgetLine, ...]
    balances: Mapping[LineKey, LineBalance]
    open_ids: frozenset[int] = frozenset()
    next_id: int = 1


def check_scope(scope: str) -> None:
    """Raises BudgetError unless the scope is all, backend:NAME, key:ID or tier:NAME."""
    kind, colon, name = scope.partition(":")
    if scope != "all" and not (kind in _SCOPE_KINDS and colon and name):
        raise BudgetError(f"budget scope is {scope!r}; use all, backend:NAME, key:ID or tier:NAME")


def covers(scope: str, spender: Spender) -> bool:
    """True if a line of this scope caps this spender."""
    kind, _, name = scope.partition(":")
    if kind == "all":
        return True
    return name == {"backend": spender.backend, "key": spender.key_id, "tier": spender.tier}[kind]


def period_start(period: Period, now: float) -> int:
    """First second (epoch, UTC) of the hour, day or month that `now` is in."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return int(now // seconds) * seconds
    day = datetime.fromtimestamp(now, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())


def period_end(period: Period, start: int) -> int:
    """First second (epoch, UTC) after the period that begins at `start`."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return start + seconds
    return period_start("month", start + 32 * 86400)


def opening(
    lines: Iterable[BudgetLine], now: float, balances: Mapping[LineKey, LineBalance] | None = None
) -> BudgetState:
    """State at start: balances from the ledger where given (holds in them stay until the period ends), else
    zero.

    Raises BudgetError if two lines have the same scope and period.
    """
    lines = tuple(lines)
    if len({line.key for line in lines}) != len(lines):
        raise BudgetError("two budgets have the same scope and period; keep one of them")
    given = balances or {}
    fresh = {line.key: LineBalance(period_start(line.period, now)) for line in lines}
    return BudgetState(lines, {key: _rolled(given.get(key, zero), zero) for key, zero in fresh.items()})


def with_lines(
    state: BudgetState,
    lines: Iterable[BudgetLine],
    now: float,
    balances: Mapping[LineKey, LineBalance] | None = None,
) -> BudgetState:
    """The state after a config reload: kept lines keep their balance and holds, new ones start from
    `balances`."""
    renewed = opening(lines, now, {**(balances or {}), **state.balances})
    return replace(renewed, open_ids=state.open_ids, next_id=state.next_id)


def rolled(state: BudgetState, now: float) -> BudgetState:
    """The state with every line in the period of `now`; a line never goes back to an earlier period."""
    changed: dict[LineKey, LineBalance] = {}
    for line in state.lines:
        start = period_start(line.period, now)
        if start > state.balances[line.key].period_start:
            changed[line.key] = LineBalance(start)
    return replace(state, balances={**state.balances, **changed}) if changed else state


def headroom(state: BudgetState, spender: Spender, now: float) -> int | None:
    """Nano-dollars this spender may still reserve now (0 or more), None where no line covers it."""
    state = rolled(state, now)
    rooms = [line.limit_nano - state.balances[line.key].taken for line in _covering(state, spender)]
    return max(0, min(rooms)) if rooms else None


def try_reserve(
    state: BudgetState, spender: Spender, amount_nano: int, now: float
) -> tuple[BudgetState, Reservation | BudgetRefused]:
    """Hold the amount on every line that covers the spender, or on none and say why."""
    if amount_nano < 0:
        raise BudgetError("a reservation can't be negative")
    state = rolled(state, now)
    lines = _covering(state, spender)
    for line in sorted(lines, key=lambda line: line.limit_nano - state.balances[line.key].taken):
        taken = state.balances[line.key].taken
        if taken + amount_nano > line.limit_nano:
            resets_at = period_end(line.period, state.balances[line.key].period_start)
            refused = BudgetRefused(line.scope, line.period, line.limit_nano, taken, amount_nano, resets_at)
            return state, refused
    holds = tuple((line.key, state.balances[line.key].period_start) for line in lines)
    reservation = Reservation(state.next_id, amount_nano, holds)
    balances = _moved(state, reservation, reserved=amount_nano, spent=0)
    return replace(
        state,
        balances=balances,
        open_ids=state.open_ids | {reservation.id},
        next_id=state.next_id + 1,
    ), reservation


def settle(state: BudgetState, reservation: Reservation, actual_nano: int) -> BudgetState:
    """Replace the hold by the actual charge. A hold that isn't open any more changes nothing (settled
    twice)."""
    if actual_nano < 0:
        raise BudgetError("a charge can't be negative")
    if reservation.id not in state.open_ids:
        return state
    balances = _moved(state, reservation, reserved=-reservation.amount_nano, spent=actual_nano)
    return replace(state, balances=balances, open_ids=state.open_ids - {reservation.id})


def release(state: BudgetState, reservation: Reservation) -> BudgetState:
    """Give the hold back: the call cost nothing."""
    return settle(state, reservation, 0)


def alerts(before: BudgetState, after: BudgetState) -> tuple[BudgetAlert, ...]:
    """Thresholds that were passed between two states, in the order of lines and shares.

    A threshold counts as passed when spent plus held reaches it; it can fire again in the next period, and
    again in this one if released holds brought the line back below it.
    """
    found = []
    for line in after.lines:
        was, now = before.balances.get(line.key), after.balances[line.key]
        same_period = was is not None and was.period_start == now.period_start
        start = was.taken if was is not None and same_period else 0
        for share in sorted(line.alert_at):
            threshold = Fraction(share) * line.limit_nano
            if start < threshold <= now.taken:
                found.append(BudgetAlert(line.scope, line.period, now.period_start, share, line.limit_nano, now.taken))
    return tuple(found)


def _covering(state: BudgetState, spender: Spender) -> list[BudgetLine]:
    return [line for line in state.lines if covers(line.scope, spender)]


def _rolled(balance: LineBalance, fresh: LineBalance) -> LineBalance:
    return balance if balance.period_start >= fresh.period_start else fresh


def _moved(state: BudgetState, reservation: Reservation, *, reserved: int, spent: int) -> dict[LineKey, LineBalance]:
    balances = dict(state.balances)
    for key, start in reservation.holds:
        balance = balances.get(key)
        if balance is not None and balance.period_start == start:
            balances[key] = LineBalance(start, balance.spent + spent, balance.reserved + reserved)
    return balances
