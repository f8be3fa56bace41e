"""The table of other fixed costs in the ledger's database: what is paid for by the month and is no GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from operator import attrgetter

from spillway_router.ledger.records import Execute, OtherCost, Rows
from spillway_router.ledger.tables.acts import Change, ChangeRows, cost_fields


class OtherCostTable(ABC):
    """Other fixed costs in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def add(self, record: OtherCost) -> bool:
        """Store a new cost; return False if the id is taken, because another router stored it first."""

    @abstractmethod
    def all(self) -> tuple[OtherCost, ...]:
        """Return all costs, oldest first."""

    @abstractmethod
    def stop(self, cost_id: str, at_ms: int) -> bool:
        """End a cost, at its start at the earliest; return False if no running cost has this id."""


_NAMES = tuple(f.name for f in fields(OtherCost))
_row = attrgetter(*_NAMES)
_ADD = (
    f"INSERT INTO other_costs ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT DO NOTHING RETURNING id"
)
_ALL = f"SELECT {', '.join(_NAMES)} FROM other_costs ORDER BY started_ms, id"  # noqa: S608
_STOP = (
    "UPDATE other_costs SET stopped_ms = CASE WHEN started_ms > ? THEN started_ms ELSE ? END"
    " WHERE id = ? AND stopped_ms IS NULL RETURNING stopped_ms"
)


class SqlOtherCosts(OtherCostTable):
    """An `OtherCostTable` in SQL that both SQLite and PostgreSQL understand.

    `change` runs a statement that changes a cost, with what makes an act of the rows that it returns.
    """

    def __init__(self, execute: Execute, change: ChangeRows) -> None:
        self._execute = execute
        self._change = change

    def add(self, record: OtherCost) -> bool:
        rows = self._change(_ADD, _row(record), lambda _: Change("cost.start", record.id, cost_fields(record)))
        return bool(rows)

    def all(self) -> tuple[OtherCost, ...]:
        return tuple(OtherCost(*row) for row in self._execute(_ALL, (), False))

    def stop(self, cost_id: str, at_ms: int) -> bool:
        def stopped(rows: Rows) -> Change:
            return Change("cost.stop", cost_id, {"stopped_ms": rows[0][0]})

        return bool(self._change(_STOP, (at_ms, at_ms, cost_id), stopped))
