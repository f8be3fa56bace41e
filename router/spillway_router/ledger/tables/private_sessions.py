"""Sessions in which something private was said, a table of its own in the ledger's database.

It holds for every router of the ledger, however often it started anew. A row holds a hash of the session's name, keyed
by the API key, and never the name, the prompt or the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from spillway_router.ledger.records import Execute

DAY_MS = 86_400_000
KEPT_DAYS = 30
"""Days for which a session without requests stays private."""
KEPT_MS = (KEPT_DAYS + 1) * DAY_MS
"""A day more, because a session is stored once a day only."""
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class PrivateSession:
    """A private session. `digest` is that of `session_digest` in hexadecimal, `seen_ms` the epoch milliseconds of a
    request in it, not older than a day before the last one."""

    digest: str
    key_id: str
    seen_ms: int


def session_digest(key_id: str, session_id: str) -> str:
    """Return the hash by which a session is known. The empty name stands for all unknown sessions of the key."""
    key = blake2b(key_id.encode(), digest_size=32).digest()
    return blake2b(session_id.encode("utf-8", "surrogateescape"), key=key, digest_size=_DIGEST_BYTES).hexdigest()


class PrivateSessionTable(ABC):
    """Private sessions. Safe to call from any thread; durable when a method returns; raises LedgerUnavailableError."""

    @abstractmethod
    def put(self, records: Sequence[PrivateSession]) -> None:
        """Store sessions, in one write. Their digests differ; one that is there already is seen later."""

    @abstractmethod
    def all(self, now_ms: int) -> Iterator[PrivateSession]:
        """Yield the sessions that are still kept, in no order."""

    @abstractmethod
    def among(self, digests: Sequence[str], now_ms: int) -> tuple[PrivateSession, ...]:
        """Return those of these sessions that are private."""

    @abstractmethod
    def prune(self, now_ms: int) -> None:
        """Remove the sessions that were seen too long ago."""


_NAMES = "digest, key_id, seen_ms"
_ALL = f"SELECT {_NAMES} FROM private_sessions WHERE seen_ms > ? AND digest > ? ORDER BY digest LIMIT ?"  # noqa: S608
_PRUNE = "DELETE FROM private_sessions WHERE seen_ms <= ? RETURNING digest"
_CHUNK = 10_000


class SqlPrivateSessions(PrivateSessionTable):
    """A `PrivateSessionTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, records: Sequence[PrivateSession]) -> None:
        if not records:
            return
        rows = ", ".join(["(?, ?, ?)"] * len(records))
        statement = (
            f"INSERT INTO private_sessions ({_NAMES}) VALUES {rows}"  # noqa: S608
            " ON CONFLICT (digest) DO UPDATE SET seen_ms = excluded.seen_ms"
            " WHERE excluded.seen_ms > private_sessions.seen_ms RETURNING seen_ms"
        )
        self._execute(statement, [value for r in records for value in (r.digest, r.key_id, r.seen_ms)], True)

    def all(self, now_ms: int) -> Iterator[PrivateSession]:
        last = ""
        while True:
            rows = self._execute(_ALL, (now_ms - KEPT_MS, last, _CHUNK), False)
            for row in rows:
                yield PrivateSession(*row)
            if len(rows) < _CHUNK:
                return
            last = rows[-1][0]

    def among(self, digests: Sequence[str], now_ms: int) -> tuple[PrivateSession, ...]:
        places = ", ".join(["?"] * len(digests))
        statement = f"SELECT {_NAMES} FROM private_sessions WHERE seen_ms > ? AND digest IN ({places})"  # noqa: S608
        rows = self._execute(statement, (now_ms - KEPT_MS, *digests), False)
        return tuple(PrivateSession(*row) for row in rows)

    def prune(self, now_ms: int) -> None:
        self._execute(_PRUNE, (now_ms - KEPT_MS,), True)
