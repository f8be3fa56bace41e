"""Budget alerts: which thresholds the balances in the database have passed, and who raises them.

Alerts follow what is spent, as the database knows it, so a router looks once a second, after it has read the balances.
It claims each alert in the ledger before it raises it (tables/alerts.py). A call that was refused because of a cap
raises that cap's last alert. What was spent or refused belongs to the period of its hold, which may be over by the time
of the look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spillway_router.core.money import budget
from spillway_router.core.money.budget import AlertKey, BudgetAlert, BudgetLine, LineBalance, PeriodKey, period_start
from spillway_router.ledger.interface import Ledger

MOST_NOTED = 10_000
"""Keys, users and refusals that are remembered between two looks, and alerts that are known to be raised."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What happened between two looks: the scopes of keys and users that have spent something, the periods of lines
    that refused a call, and the hours (since the epoch) of the holds of what was spent."""

    spent: frozenset[str] = frozenset()
    refused: frozenset[PeriodKey] = frozenset()
    hours: frozenset[int] = frozenset()

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of keys and users whose own caps may have an alert due."""
        return tuple(sorted(self.spent.union(scope for scope, _, _ in self.refused if scope.startswith(_OWN))))

    def past(self, lines: Iterable[BudgetLine], wall_s: float) -> list[tuple[BudgetLine, int]]:
        """Return the periods, by their starts, that were over at `wall_s` and in which something happened."""
        past = []
        for line in lines:
            starts_s = {period_start(line.period, hour * _HOUR_S) for hour in self.hours}
            starts_s.update(start_s for scope, period, start_s in self.refused if (scope, period) == line.key)
            past += [(line, start_s) for start_s in sorted(starts_s) if start_s < period_start(line.period, wall_s)]
        return past


_OWN = ("key:", "user:")
_HOUR_S = 3600


class AlertWatch:
    """What happened since the last look at the balances, and which alerts are raised already."""

    def __init__(self, on_alert: Callable[[BudgetAlert], None]) -> None:
        self._on_alert = on_alert
        self._raised: set[AlertKey] = set()
        self._refused: set[PeriodKey] = set()
        self._spent: set[str] = set()
        self._hours: set[int] = set()
        self._before = Noted()

    def settled(self, held_ms: int) -> None:
        """Note that something was spent whose hold was taken at `held_ms` (epoch milliseconds)."""
        self._hours.add(held_ms // (_HOUR_S * 1000))

    def spent(self, scope: str) -> None:
        """Note that a key or a user has spent something, where each of them has a cap of its own."""
        if len(self._spent) < MOST_NOTED:
            self._spent.add(scope)

    def refused(self, period: PeriodKey) -> None:
        """Note that a call was refused because of a line in this period."""
        if len(self._refused) < MOST_NOTED:
            self._refused.add(period)

    def take(self) -> Noted:
        """Return what happened since the last look, and forget it; what was spent, only after another look: its row may
        not be in the ledger yet."""
        before, now = self._before, Noted(frozenset(self._spent), frozenset(self._refused), frozenset(self._hours))
        self._before = now
        self._spent.clear()
        self._refused.clear()
        self._hours.clear()
        return Noted(now.spent | before.spent, now.refused, now.hours | before.hours)

    def put_back(self, noted: Noted) -> None:
        """Remember again what was taken, because the look failed."""
        self._spent |= noted.spent
        self._refused |= noted.refused
        self._hours |= noted.hours

    def due(self, balances: Iterable[tuple[BudgetLine, LineBalance]], noted: Noted) -> tuple[BudgetAlert, ...]:
        """Return the alerts that these balances raise and that this process has not raised yet."""
        return budget.alerts(balances, self._raised, noted.refused)

    def tell(self, claimed: Iterable[tuple[BudgetAlert, bool]]) -> None:
        """Raise the alerts that this process has claimed, and remember all of them."""
        if len(self._raised) > MOST_NOTED:
            self._raised.clear()  # the ledger still knows which ones were claimed
        for alert, is_ours in claimed:
            self._raised.add(alert.key)
            if is_ours:
                self._on_alert(alert)


def claims(ledger: Ledger, due: Iterable[BudgetAlert], now_ms: int) -> list[tuple[BudgetAlert, bool]]:
    """Claim these alerts; return each with whether nobody did so before. Raises LedgerUnavailableError."""
    return [(alert, ledger.alerts.claim(alert.key, now_ms)) for alert in due]
