"""Budgets: caps on cloud spend per hour, day or month, and what a router knows of them without asking the database.

The database checks every hold inside the transaction that stores it (ledger/posting.py), so for any number of processes
`spent + reserved + bound <= limit` holds on every budget line. The state in this module is a cached copy of the
balances: it lets the policy leave out backends that have no headroom left, and it shows when a threshold is passed.
`moved` applies this process's own holds and charges at once; `refreshed` replaces the copy with balances that were read
again, which include those of other processes. The copy may be a second old. When it is wrong, that costs one look at
the database, never money.

If a provider bills more than the bound, the balance records the true amount and the line refuses everything until its
period ends. A hold belongs to the period in which it was taken: settling it later changes nothing in the period that
runs by then.

The module is pure: states are values, and time is an argument (`wall_s`, epoch seconds, UTC). If the clock goes back,
the later period stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Literal, get_args

from spillway_router.core.frozen import fast_frozen

Period = Literal["hour", "day", "month"]
LineKey = tuple[str, Period]
PeriodKey = tuple[str, Period, int]
"""Scope, period, and the start of one such period (epoch seconds)."""

_SECONDS: dict[Period, int] = {"hour": 3600, "day": 86400}
_SCOPE_KINDS = ("backend", "key", "tier", "user")
EACH_KEY = "each key"
"""The scope of a cap that every API key has for itself."""
EACH_USER = "each user"
"""The scope of a cap that every end user of every API key has for itself (users.py)."""
EACH = (EACH_KEY, EACH_USER)


class BudgetError(ValueError):
    """A budget line can't be used; the message says what to change."""


@fast_frozen(frozen=True, slots=True)
class BudgetLine:
    """One cap.

    `scope` is all, backend:NAME, key:ID, tier:NAME, user:ID or one of EACH; `limit_nano` is in nano-dollars; `alert_at`
    holds shares of the limit.
    """

    scope: str
    period: Period
    limit_nano: int
    alert_at: tuple[Decimal, ...] = ()
    label: str = ""
    """The scope in metrics where it is another one: that of EACH for the caps of single keys or users, which may be
    many."""

    def __post_init__(self) -> None:
        if self.scope not in EACH:
            check_scope(self.scope)
        if self.period not in get_args(Period):
            raise BudgetError(f"budget period is {self.period!r}; use hour, day or month")
        if self.limit_nano < 0:
            raise BudgetError(f"budget limit for {self.scope} is negative; use 0 to forbid spending")
        if any(not 0 < share <= 1 for share in self.alert_at):
            raise BudgetError(f"alert_at for {self.scope} must hold shares above 0 and up to 1, such as 0.8")

    @property
    def key(self) -> LineKey:
        """Scope and period, which identify the line."""
        return (self.scope, self.period)


@fast_frozen(frozen=True, slots=True)
class Spender:
    """Who spends where; scopes are matched against this."""

    backend: str
    key_id: str = ""
    tier: str = ""


@fast_frozen(frozen=True, slots=True)
class LineBalance:
    """One line in its current period: when the period began (epoch seconds), and nano-dollars spent and reserved."""

    period_start_s: int
    spent_nano: int = 0
    reserved_nano: int = 0

    @property
    def taken_nano(self) -> int:
        """Nano-dollars that are no longer free, because they are spent or reserved."""
        return self.spent_nano + self.reserved_nano


@fast_frozen(frozen=True, slots=True)
class BudgetAlert:
    """A threshold that a line has just passed: `spent_nano` reached the share `at` of `limit_nano`, or somebody was
    refused a call that did not fit beside the `held_nano` of calls in progress."""

    scope: str
    period: Period
    period_start_s: int
    at: Decimal
    limit_nano: int
    spent_nano: int
    held_nano: int = 0
    refused: bool = False
    label: str = ""
    """The scope in metrics where it is another one."""

    @property
    def key(self) -> AlertKey:
        """The identity of the alert, which allows reporting it once per period and cap."""
        return (self.scope, self.period, self.period_start_s, self.at, self.limit_nano)


AlertKey = tuple[str, Period, int, Decimal, int]
"""Scope, period, start of the period (epoch seconds), share, limit in nano-dollars."""


@fast_frozen(frozen=True, slots=True)
class BudgetState:
    """All lines with their balances, as far as this process knows them. `opening` creates one."""

    lines: tuple[BudgetLine, ...]
    balances: dict[LineKey, LineBalance]


def check_scope(scope: str) -> None:
    """Raise BudgetError unless the scope is all, backend:NAME, key:ID, tier:NAME or user:ID."""
    kind, colon, name = scope.partition(":")
    if scope != "all" and not (kind in _SCOPE_KINDS and colon and name):
        raise BudgetError(f"budget scope is {scope!r}; use all, each key, each user, backend:NAME, key:ID or tier:NAME")


def covers(scope: str, spender: Spender) -> bool:
    """Return whether a line of this scope caps this spender."""
    kind, _, name = scope.partition(":")
    if kind == "all":
        return True
    return name == (spender.backend if kind == "backend" else spender.key_id if kind == "key" else spender.tier)


def period_start(period: Period, wall_s: float) -> int:
    """Return the first second (epoch, UTC) of the hour, day or month that contains `wall_s`."""
    return _start_of_hour(period, int(wall_s // 3600))


@lru_cache(maxsize=256)
def _start_of_hour(period: Period, hour: int) -> int:
    """Return the start of the period that contains an hour (counted since the epoch); every period starts on one."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return hour * 3600 // seconds * seconds
    day = datetime.fromtimestamp(hour * 3600, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())


def period_end(period: Period, start_s: int) -> int:
    """Return the first second (epoch, UTC) after the period that begins at `start_s`."""
    seconds = _SECONDS.get(period)
    if seconds is not None:
        return start_s + seconds
    return period_start("month", start_s + 32 * 86400)


def opening(
    lines: Iterable[BudgetLine], wall_s: float, balances: Mapping[LineKey, LineBalance] | None = None
) -> BudgetState:
    """Return the state at start or after a configuration change, with the given balances from the ledger, else zero.

    Raises BudgetError if two lines have the same scope and period.
    """
    lines = tuple(lines)
    if len({line.key for line in lines}) != len(lines):
        raise BudgetError("two budgets have the same scope and period; keep one of them")
    zero = {line.key: LineBalance(period_start(line.period, wall_s)) for line in lines}
    return refreshed(BudgetState(lines, zero), balances or {})


def refreshed(state: BudgetState, balances: Mapping[LineKey, LineBalance]) -> BudgetState:
    """Return the state with balances read from the ledger, ignoring those of a period that is over in this state."""
    merged = {
        key: _later(balances[key], balance) if key in balances else balance for key, balance in state.balances.items()
    }
    return replace(state, balances=merged)


def rolled(state: BudgetState, wall_s: float) -> BudgetState:
    """Return the state with every line in the period of `wall_s`; a line never returns to an earlier period."""
    changed: dict[LineKey, LineBalance] = {}
    for line in state.lines:
        start_s = period_start(line.period, wall_s)
        if start_s > state.balances[line.key].period_start_s:
            changed[line.key] = LineBalance(start_s)
    return replace(state, balances={**state.balances, **changed}) if changed else state


def headroom(state: BudgetState, spender: Spender, wall_s: float) -> int | None:
    """Return the nano-dollars (0 or more) that this spender may still reserve, None if no line covers it."""
    state = rolled(state, wall_s)
    rooms_nano = [line.limit_nano - state.balances[line.key].taken_nano for line in covering(state.lines, spender)]
    return max(0, min(rooms_nano)) if rooms_nano else None


def lines_for(scope: str, each: Iterable[BudgetLine], lines: Iterable[BudgetLine] = ()) -> tuple[BudgetLine, ...]:
    """Return the caps that one key or user (`scope`) has for itself: those of `each`, unless `lines` has one of its own
    for the same period.

    They are made when they are needed, so that their number costs nothing.
    """
    own = {line.period for line in lines if line.scope == scope}
    return tuple(replace(line, scope=scope, label=line.scope) for line in each if line.period not in own)


def covering(lines: Iterable[BudgetLine], spender: Spender) -> tuple[BudgetLine, ...]:
    """Return the lines that cap this spender."""
    return tuple(line for line in lines if covers(line.scope, spender))


def moved(
    state: BudgetState, keys: Iterable[LineKey], held_s: float, *, spent_nano: int = 0, reserved_nano: int = 0
) -> BudgetState:
    """Return the state after a hold or a charge of an attempt whose hold was taken at `held_s` (epoch seconds).

    `keys` are the lines that cover the attempt; the nano-dollars are added to their balances.
    """
    state = BudgetState(state.lines, dict(state.balances))
    move(state, keys, held_s, spent_nano=spent_nano, reserved_nano=reserved_nano)
    return state


def move(
    state: BudgetState, keys: Iterable[LineKey], held_s: float, *, spent_nano: int = 0, reserved_nano: int = 0
) -> None:
    """Do what `moved` does in place, so that it costs the same with one line and with thousands."""
    balances = state.balances
    for key in keys:
        balance = balances.get(key)
        if balance is not None and balance.period_start_s == period_start(key[1], held_s):
            # Never below zero: a balance that was read in between may include the settlement already.
            balances[key] = LineBalance(
                balance.period_start_s,
                max(0, balance.spent_nano + spent_nano),
                max(0, balance.reserved_nano + reserved_nano),
            )


def taken_at_least(state: BudgetState, key: LineKey, start_s: int, taken_nano: int) -> BudgetState:
    """Return the state after the database reported how much of a line is taken in the period that begins at
    `start_s`."""
    balance = state.balances.get(key)
    if balance is None or balance.period_start_s != start_s or balance.taken_nano >= taken_nano:
        return state
    raised = replace(balance, spent_nano=taken_nano - balance.reserved_nano)
    return replace(state, balances={**state.balances, key: raised})


def alerts(
    balances: Iterable[tuple[BudgetLine, LineBalance]], reported: Set[AlertKey], refused: Set[PeriodKey] = frozenset()
) -> tuple[BudgetAlert, ...]:
    """Return the thresholds that are reached and not yet `reported`, by line and share.

    What is spent counts, not what is held. The last threshold, all of the limit, is also reached in a period in which a
    call was `refused` because it did not fit. A limit of 0 never raises an alert, because nothing of it can be spent.
    """
    new = []
    for line, balance in balances:
        was_refused = (line.scope, line.period, balance.period_start_s) in refused
        shares = {*line.alert_at, _ALL_OF_IT} if was_refused and line.alert_at else set(line.alert_at)
        for share in sorted(shares):
            alert = BudgetAlert(
                scope=line.scope,
                period=line.period,
                period_start_s=balance.period_start_s,
                at=share,
                limit_nano=line.limit_nano,
                spent_nano=balance.spent_nano,
                held_nano=balance.reserved_nano,
                refused=was_refused and share == _ALL_OF_IT,
                label=line.label,
            )
            reached = line.limit_nano and Fraction(share) * line.limit_nano <= balance.spent_nano
            if (reached or (alert.refused and line.limit_nano)) and alert.key not in reported:
                new.append(alert)
    return tuple(new)


_ALL_OF_IT = Decimal(1)


def _later(balance: LineBalance, other: LineBalance) -> LineBalance:
    return balance if balance.period_start_s >= other.period_start_s else other
