"""Budgets: caps on cloud spend per hour, day or month, and what a router knows of them without asking the database.

The database judges every hold inside the transaction that stores it (ledger/posting.py), so on every line
`spent + reserved + bound <= limit` for any number of processes. The state here is a cached copy of the balances: it
lets the policy leave out backends that have no headroom left, and says when a threshold is passed. It follows this
process's own holds and charges at once (`moved`) and everybody's when it is read again (`refreshed`), so it may be a
second old; being wrong costs a look at the database, never money.

If a provider bills more than the bound, the balance records the truth and the line refuses everything until its period
ends. A hold belongs to the period in which it was taken: settling it later changes nothing in the period that runs by
then.

Pure: states are values, time is an argument (epoch seconds, UTC). If time goes back, the later period stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal, get_args

from spillway_router.core.frozen import dataclass

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

    @property
    def key(self) -> AlertKey:
        """Its identity."""
        return (self.scope, self.period, self.period_start, self.at)


AlertKey = tuple[str, Period, int, Decimal]
"""Scope, period, start of the period (epoch s), share."""


@dataclass(frozen=True, slots=True)
class BudgetState:
    """All lines with their balances, as far as known. Make it with `opening`."""

    lines: tuple[BudgetLine, ...]
    balances: Mapping[LineKey, LineBalance]


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
    return name == (spender.backend if kind == "backend" else spender.key_id if kind == "key" else spender.tier)


def period_start(period: Period, now: float) -> int:
    """First second (epoch, UTC) of the hour, day or month that `now` is in."""
    return _start_of_hour(period, int(now // 3600))


@lru_cache(maxsize=256)
def _start_of_hour(period: Period, hour: int) -> int:
    """All periods begin with an hour, so the hour since the epoch says which one it is."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return hour * 3600 // seconds * seconds
    day = datetime.fromtimestamp(hour * 3600, UTC)
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
    """State at start or after a change of the configuration: balances from the ledger where given, else zero.

    Raises BudgetError if two lines have the same scope and period.
    """
    lines = tuple(lines)
    if len({line.key for line in lines}) != len(lines):
        raise BudgetError("two budgets have the same scope and period; keep one of them")
    fresh = {line.key: LineBalance(period_start(line.period, now)) for line in lines}
    return refreshed(BudgetState(lines, fresh), balances or {})


def refreshed(state: BudgetState, balances: Mapping[LineKey, LineBalance]) -> BudgetState:
    """The state with the balances that were read from the ledger, except those of a period that is over here."""
    known = {
        key: _later(balances[key], balance) if key in balances else balance for key, balance in state.balances.items()
    }
    return replace(state, balances=known)


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
    rooms = [line.limit_nano - state.balances[line.key].taken for line in covering(state.lines, spender)]
    return max(0, min(rooms)) if rooms else None


def covering(lines: Iterable[BudgetLine], spender: Spender) -> tuple[BudgetLine, ...]:
    """The lines that cap this spender."""
    return tuple(line for line in lines if covers(line.scope, spender))


def moved(state: BudgetState, keys: Iterable[LineKey], at: float, *, spent: int = 0, reserved: int = 0) -> BudgetState:
    """The state after a hold or charge of an attempt that was reserved at `at`: nano-dollars to add to the lines that
    cover it."""
    balances = dict(state.balances)
    for key in keys:
        balance = balances.get(key)
        if balance is not None and balance.period_start == period_start(key[1], at):
            # Never below zero: a balance read in between may know of the settlement already.
            balances[key] = LineBalance(
                balance.period_start, max(0, balance.spent + spent), max(0, balance.reserved + reserved)
            )
    return BudgetState(state.lines, balances)


def taken_at_least(state: BudgetState, key: LineKey, start: int, taken: int) -> BudgetState:
    """The state after the database said how much of a line is spent or held in the period that begins at `start`."""
    balance = state.balances.get(key)
    if balance is None or balance.period_start != start or balance.taken >= taken:
        return state
    told = replace(balance, spent=taken - balance.reserved)
    return replace(state, balances={**state.balances, key: told})


def alerts(state: BudgetState, told: Set[AlertKey]) -> tuple[BudgetAlert, ...]:
    """Thresholds that are reached (spent plus held) and were not told yet, in the order of lines and shares.

    Each can be told once a period; a share of a limit of 0 is never told, as nothing can be spent of it.
    """
    found = []
    for line in state.lines:
        balance = state.balances[line.key]
        for share in sorted(line.alert_at):
            alert = BudgetAlert(line.scope, line.period, balance.period_start, share, line.limit_nano, balance.taken)
            if line.limit_nano and Fraction(share) * line.limit_nano <= balance.taken and alert.key not in told:
                found.append(alert)
    return tuple(found)


def _later(balance: LineBalance, other: LineBalance) -> LineBalance:
    return balance if balance.period_start >= other.period_start else other
