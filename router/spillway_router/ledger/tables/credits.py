"""Credits that were taken: a table of its own in the ledger's database, one row per somebody, kind and period.

A credit is taken before its request is sent and given back if nobody answered, so that for any number of routers no cap
is exceeded: the database counts up only below the limit, all caps of a request in one transaction. If a router ends in
between, the credit stays taken. Rows of periods that began more than KEPT_MS ago are deleted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spillway_router.core.money.budget import Period, period_start
from spillway_router.core.money.credits import Counted, CreditCap
from spillway_router.ledger.records import Execute, Rows
from spillway_router.ledger.tables.acts import RunSql

KEPT_MS = 100 * 86_400_000


@dataclass(frozen=True, slots=True)
class CreditsUsed:
    """How many credits of one cap were taken in one period; `limit` is the cap's at the last one."""

    scope: str
    counted: Counted
    period: Period
    start_ms: int
    used: int
    limit: int


class CreditTable(ABC):
    """Credits in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def take(self, caps: Sequence[CreditCap]) -> CreditCap | None:
        """Take a credit of each cap, or none of any, and return the cap that has none left."""

    @abstractmethod
    def give_back(self, caps: Sequence[CreditCap]) -> None:
        """Give a credit of each cap back."""

    @abstractmethod
    def used(self, start_ms: int, end_ms: int, most: int) -> tuple[CreditsUsed, ...]:
        """Return the periods that overlap [start, end) (epoch ms), of each kind those of which most was taken."""


class NoneLeft(Exception):  # noqa: N818 - it is no error: it undoes the transaction
    """A cap has no credit left, so that none of any is taken."""

    def __init__(self, cap: CreditCap) -> None:
        super().__init__(cap.scope)
        self.cap = cap


_TAKE = (
    "INSERT INTO credits (scope, counted, period, start_ms, used, most) VALUES (?, ?, ?, ?, 1, ?)"
    " ON CONFLICT (scope, counted, period, start_ms) DO UPDATE SET used = credits.used + 1, most = excluded.most"
    " WHERE credits.used < excluded.most RETURNING used"
)
_FORGET = "DELETE FROM credits WHERE start_ms < ?"
_GIVE_BACK = (
    "UPDATE credits SET used = used - 1 WHERE scope = ? AND counted = ? AND period = ? AND start_ms = ? AND used > 0"
)
_USED = (
    "SELECT scope, counted, period, start_ms, used, most FROM credits WHERE counted = ? AND start_ms < ? AND used > 0"
    " AND ((period = 'hour' AND start_ms >= ?) OR (period = 'day' AND start_ms >= ?) OR"
    " (period = 'month' AND start_ms >= ?)) ORDER BY used DESC, scope, period, start_ms LIMIT ?"
)
Transact = Callable[[Callable[[RunSql], Rows]], Rows]
"""Runs work in one transaction, which an exception undoes; it is durable on return."""


class SqlCredits(CreditTable):
    """A `CreditTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute, transact: Transact) -> None:
        self._execute = execute
        self._transact = transact

    def take(self, caps: Sequence[CreditCap]) -> CreditCap | None:
        def work(run: RunSql) -> Rows:
            for cap in sorted(caps, key=_key):  # always in this order, so that two routers never wait for each other
                taken = run(_TAKE, (*_key(cap), cap.limit)) if cap.limit > 0 else []
                if not taken:
                    raise NoneLeft(cap)
                if taken[0][0] == 1:  # the first one of a period
                    run(_FORGET, (cap.start_ms - KEPT_MS,))
            return []

        try:
            self._transact(work)
        except NoneLeft as stopped:
            return stopped.cap
        return None

    def give_back(self, caps: Sequence[CreditCap]) -> None:
        def work(run: RunSql) -> Rows:
            for cap in sorted(caps, key=_key):
                run(_GIVE_BACK, _key(cap))
            return []

        self._transact(work)

    def used(self, start_ms: int, end_ms: int, most: int) -> tuple[CreditsUsed, ...]:
        first = begun_at(start_ms)
        kinds: tuple[Counted, ...] = ("requests", "better")
        rows = [row for kind in kinds for row in self._execute(_USED, (kind, end_ms, *first, most), False)]
        return tuple(CreditsUsed(*row) for row in rows)


def begun_at(at_ms: int) -> tuple[int, int, int]:
    """Return when the hour, the day and the month of a time began, in epoch milliseconds."""
    hour, day, month = (period_start(period, at_ms / 1000) * 1000 for period in ("hour", "day", "month"))
    return hour, day, month


def _key(cap: CreditCap) -> tuple[str, str, str, int]:
    return (cap.scope, cap.counted, cap.period, cap.start_ms)
