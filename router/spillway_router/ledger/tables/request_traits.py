"""What requests asked for, where rules of the policy look at that: a table of its own in the ledger's database.

A row has the alias, the complexity and the language of a request, and none of its text. A replay needs them to apply
other rules; nothing else reads them. They are written a few seconds later, together, and may be missing after a crash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spillway_router.ledger.ids import first_id
from spillway_router.ledger.records import Execute

KEPT_MS = 90 * 86_400_000
MOST_ROWS = 5_000_000
"""Rows that are kept, the newest ones: about 400 MB."""
MOST_AT_ONCE = 500
"""Rows that one statement reads or writes, at most."""


@dataclass(frozen=True, slots=True)
class RequestTraits:
    """The alias that a request asked for, its complexity from 0 to 10, and its language ("" if it is not known)."""

    request_id: str
    model: str
    complexity: int
    language: str


class TraitTable(ABC):
    """Traits of requests. Safe from any thread; durable when a method returns; raises LedgerUnavailableError."""

    @abstractmethod
    def put(self, records: Sequence[RequestTraits]) -> None:
        """Store at most `MOST_AT_ONCE` rows, in one write. An id that is there already stays as it is."""

    @abstractmethod
    def all(self, since_ms: int) -> Iterator[RequestTraits]:
        """Yield the rows of requests that came from then on, in the order of their ids, which is that of arrival."""

    @abstractmethod
    def prune(self, now_ms: int, most: int = MOST_ROWS) -> None:
        """Remove what is too old, and the oldest of more than `most`."""


_NAMES = "request_id, model, complexity, language"
_PAGE = f"SELECT {_NAMES} FROM request_traits WHERE request_id > ? ORDER BY request_id LIMIT {MOST_AT_ONCE}"  # noqa: S608
_PRUNE = (
    "DELETE FROM request_traits WHERE request_id < ? OR request_id <="
    " (SELECT request_id FROM request_traits ORDER BY request_id DESC LIMIT 1 OFFSET ?) RETURNING complexity"
)


class SqlTraits(TraitTable):
    """A `TraitTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, records: Sequence[RequestTraits]) -> None:
        if not records:
            return
        rows = ", ".join(["(?, ?, ?, ?)"] * len(records))
        statement = (
            f"INSERT INTO request_traits ({_NAMES}) VALUES {rows}"  # noqa: S608
            " ON CONFLICT (request_id) DO NOTHING RETURNING complexity"
        )
        values = [value for r in records for value in (r.request_id, r.model, r.complexity, r.language)]
        self._execute(statement, values, True)

    def all(self, since_ms: int) -> Iterator[RequestTraits]:
        after = first_id(since_ms)
        while rows := self._execute(_PAGE, (after,), False):
            for row in rows:
                yield RequestTraits(*row)
            after = rows[-1][0]

    def prune(self, now_ms: int, most: int = MOST_ROWS) -> None:
        self._execute(_PRUNE, (first_id(now_ms - KEPT_MS), most), True)
