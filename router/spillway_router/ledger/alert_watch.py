"""Budget alerts: which thresholds the balances in the database have passed, and who raises them.

Alerts follow what is spent, as the database knows it, so a router looks once a second, after it has read the balances.
It claims each alert in the ledger before it raises it (tables/alerts.py). A call that was refused because of a cap
raises that cap's last alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from spillway_router.core.money import budget
from spillway_router.core.money.budget import AlertKey, BudgetAlert, BudgetLine, LineBalance, LineKey
from spillway_router.ledger.interface import Ledger

MOST_NOTED = 10_000
"""Keys, users and refusals that are remembered between two looks, and alerts that are known to be raised."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What happened between two looks: the scopes of keys and users that have spent something, and the lines that
    refused a call."""

    spent: frozenset[str]
    refused: frozenset[LineKey]

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of keys and users whose own caps may have an alert due."""
        return tuple(sorted(self.spent.union(scope for scope, _ in self.refused if scope.startswith(_OWN))))


_OWN = ("key:", "user:")


class AlertWatch:
    """What happened since the last look at the balances, and which alerts are raised already."""

    def __init__(self, on_alert: Callable[[BudgetAlert], None]) -> None:
        self._on_alert = on_alert
        self._raised: set[AlertKey] = set()
        self._refused: set[LineKey] = set()
        self._spent: set[str] = set()

    def spent(self, scope: str) -> None:
        """Note that a key or a user has spent something, where each of them has a cap of its own."""
        if len(self._spent) < MOST_NOTED:
            self._spent.add(scope)

    def refused(self, line: LineKey) -> None:
        """Note that a call was refused because of this line."""
        if len(self._refused) < MOST_NOTED:
            self._refused.add(line)

    def take(self) -> Noted:
        """Return what happened since the last look, and forget it."""
        noted = Noted(frozenset(self._spent), frozenset(self._refused))
        self._spent.clear()
        self._refused.clear()
        return noted

    def put_back(self, noted: Noted) -> None:
        """Remember again what was taken, because the look failed."""
        self._spent |= noted.spent
        self._refused |= noted.refused

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
