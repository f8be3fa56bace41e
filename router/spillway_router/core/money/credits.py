"""Credits: how many requests, or better answers, somebody may have in an hour, a day or a month.

A budget counts dollars and binds where money is spent; credits count requests, local ones too. A line names whom it
covers; a cap is a line for one of them in one period. Periods are those of budgets, in UTC.

The module is pure: time is an argument (`wall_s`, epoch seconds).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from spillway_router.core.money.budget import EACH, EACH_KEY, EACH_USER, BudgetError, Period, check_scope, period_start

Counted = Literal["requests", "better"]
"""What is counted: all requests, or those that ask for a better answer."""
MOST_CREDITS = 10**12


@dataclass(frozen=True, slots=True)
class CreditLine:
    """At most `limit` of what is counted per period, for all of a scope together or for each of it.

    `scope` is all, key:ID, tier:NAME, each key or each user. Raises BudgetError if it is something else.
    """

    scope: str
    period: Period
    limit: int
    counted: Counted = "requests"

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= MOST_CREDITS:
            raise BudgetError(f"a number of {self.counted} is {self.limit}; use 0 to {MOST_CREDITS}")
        kind = self.scope.partition(":")[0]
        if self.scope in EACH:
            return
        if kind not in ("all", "key", "tier"):
            raise BudgetError(
                f"credits have the scope {self.scope!r}; use all, each key, each user, key:ID or tier:NAME"
            )
        check_scope(self.scope)


@dataclass(frozen=True, slots=True)
class CreditCap:
    """What somebody may have in one period that begins at `start_ms` (epoch milliseconds). `scope` is all, key:ID,
    tier:NAME or user:PSEUDONYM."""

    scope: str
    counted: Counted
    period: Period
    start_ms: int
    limit: int


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: an API key, its tier, and the pseudonym of the end user (users.py)."""

    key_id: str
    tier: str
    user_id: str

    def scope(self, of_line: str) -> str:
        """Return the scope of this asker's cap under a line, "" if the line covers somebody else."""
        if of_line == EACH_USER:
            return f"user:{self.user_id}"
        if of_line == EACH_KEY:
            return f"key:{self.key_id}" if self.key_id else ""
        return of_line if of_line in ("all", f"key:{self.key_id}", f"tier:{self.tier}") else ""


def caps_of(
    lines: Iterable[CreditLine], asker: Asker, counted: frozenset[Counted], wall_s: float
) -> tuple[CreditCap, ...]:
    """Return the caps that bind a request which counts as `counted`, in a fixed order.

    Of two lines for the same asker, period and kind, the later one counts.
    """
    caps: dict[tuple[str, Counted, Period], CreditCap] = {}
    for line in lines:
        scope = asker.scope(line.scope)
        if scope and line.counted in counted:
            start_ms = period_start(line.period, wall_s) * 1000
            caps[scope, line.counted, line.period] = CreditCap(
                scope=scope, counted=line.counted, period=line.period, start_ms=start_ms, limit=line.limit
            )
    return tuple(caps[key] for key in sorted(caps))
