"""Budget alerts that were raised, and morning reports that were sent: a table of its own in the ledger's database, so
that each is raised once.

Every router looks at the same balances. Before one raises an alert it claims it here, and only one claim succeeds,
whichever router makes it and however often a router starts anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from spillway_router.core.money.budget import AlertKey
from spillway_router.ledger.records import Execute

KEPT_MS = 62 * 86_400_000
"""How long after the start of its period a claim is kept: longer than the longest period."""


class AlertTable(ABC):
    """Claims of budget alerts. Safe to call from any thread; raises LedgerUnavailableError."""

    @abstractmethod
    def claim(self, key: AlertKey, now_ms: int) -> bool:
        """Return whether nobody has claimed this alert before; it is claimed durably by then."""

    @abstractmethod
    def is_claimed(self, key: AlertKey) -> bool:
        """Return whether somebody has claimed this alert."""


_CLAIM = (
    "INSERT INTO alerts (start_ms, scope, period, at, limit_nano, claimed_ms) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO NOTHING RETURNING start_ms"
)
_CLAIMED = "SELECT start_ms FROM alerts WHERE start_ms = ? AND scope = ? AND period = ? AND at = ? AND limit_nano = ?"
_FORGET = "DELETE FROM alerts WHERE start_ms < ? RETURNING start_ms"


class SqlAlerts(AlertTable):
    """An `AlertTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def claim(self, key: AlertKey, now_ms: int) -> bool:
        claimed = self._execute(_CLAIM, (*_values(key), now_ms), True)
        if claimed:
            self._execute(_FORGET, (now_ms - KEPT_MS,), True)
        return bool(claimed)

    def is_claimed(self, key: AlertKey) -> bool:
        return bool(self._execute(_CLAIMED, _values(key), False))


def _values(key: AlertKey) -> tuple[int, str, str, str, int]:
    scope, period, start_s, at, limit_nano = key
    return start_s * 1000, scope, period, f"{at.normalize():f}", limit_nano  # 1.0 and 1 are the same threshold
