"""Responses that providers store, a table of its own in the ledger's database: which backend made each, and for whom.

A response can be read, deleted and followed only at the account that made it, by the key that it was made for. This
holds for every router of the ledger, however often it started anew. A row holds no prompt and no answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spillway_router.ledger.records import Execute

KEPT_MS = 30 * 86_400_000
"""OpenAI stores a response for 30 days."""
MOST_RESPONSES = 200_000
"""Rows that are kept, the newest ones: about 30 MB."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """Where a response is stored, for whose key, since when (epoch ms), and whether it must not reach a cloud."""

    response_id: str
    key_id: str
    backend: str
    made_ms: int
    private: bool


class ResponseTable(ABC):
    """Stored responses. Safe to call from any thread; durable when a method returns; raises LedgerUnavailableError."""

    @abstractmethod
    def put(self, records: Sequence[StoredResponse]) -> None:
        """Store responses, in one write. Their ids differ; an id that is there already is replaced."""

    @abstractmethod
    def get(self, response_id: str, now_ms: int) -> StoredResponse | None:
        """Return where a response is stored; None if that is not known, or it was made too long ago."""

    @abstractmethod
    def forget(self, response_id: str) -> None:
        """Remove a response that was deleted."""

    @abstractmethod
    def prune(self, now_ms: int, most: int = MOST_RESPONSES) -> None:
        """Remove what is too old, and the oldest of more than `most`."""


_NAMES = "response_id, key_id, backend, made_ms, private"
_UPDATE = ", ".join(f"{name} = excluded.{name}" for name in _NAMES.split(", ")[1:])
_GET = f"SELECT {_NAMES} FROM stored_responses WHERE response_id = ? AND made_ms > ?"  # noqa: S608
_FORGET = "DELETE FROM stored_responses WHERE response_id = ? RETURNING response_id"
_PRUNE = (
    "DELETE FROM stored_responses WHERE made_ms <= ? OR made_ms <="
    " (SELECT made_ms FROM stored_responses ORDER BY made_ms DESC LIMIT 1 OFFSET ?) RETURNING made_ms"
)


class SqlResponses(ResponseTable):
    """A `ResponseTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, records: Sequence[StoredResponse]) -> None:
        if not records:
            return
        rows = ", ".join(["(?, ?, ?, ?, ?)"] * len(records))
        values = [(r.response_id, r.key_id, r.backend, r.made_ms, int(r.private)) for r in records]
        statement = (
            f"INSERT INTO stored_responses ({_NAMES}) VALUES {rows}"  # noqa: S608
            f" ON CONFLICT (response_id) DO UPDATE SET {_UPDATE} RETURNING made_ms"
        )
        self._execute(statement, [value for row in values for value in row], True)

    def get(self, response_id: str, now_ms: int) -> StoredResponse | None:
        rows = self._execute(_GET, (response_id, now_ms - KEPT_MS), False)
        return replace(StoredResponse(*rows[0]), private=bool(rows[0][4])) if rows else None

    def forget(self, response_id: str) -> None:
        self._execute(_FORGET, (response_id,), True)

    def prune(self, now_ms: int, most: int = MOST_RESPONSES) -> None:
        self._execute(_PRUNE, (now_ms - KEPT_MS, most), True)
