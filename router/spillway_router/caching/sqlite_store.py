"""Stored answers in a SQLite file, which outlives the process and which routers of one machine may share.

Calls block, so each has a daemon thread (ledger/calls.py): a disk that hangs keeps nobody waiting. Nothing here has to
survive a power cut, so a commit does not wait for the disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import apsw

from spillway_router.caching.interface import AnswerStore, StoreUnavailableError
from spillway_router.ledger.calls import LedgerCalls
from spillway_router.ledger.errors import LedgerUnavailableError

MOST_CALLS = 64
"""Threads at a time; one call after the other has the file."""
BUSY_MS = 1_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        BLOB    NOT NULL UNIQUE,
    expires_ms INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    value      BLOB    NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS answers_by_expiry ON answers (expires_ms);
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (id, bytes);
"""
_GET = "SELECT value FROM answers WHERE key = ? AND expires_ms > ?"
_PUT = "INSERT OR REPLACE INTO answers (key, expires_ms, bytes, value) VALUES (?, ?, ?, ?)"
_TOO_OLD = "SELECT max(id) FROM (SELECT id, sum(bytes) OVER (ORDER BY id DESC) AS newer FROM answers) WHERE newer > ?"


class SqliteStore(AnswerStore):
    """At most `most_bytes` of answers in a file of this user's alone; the oldest make room. `wall` is epoch seconds."""

    leaves_process = True

    def __init__(self, path: Path, most_bytes: int, wall: Callable[[], float]) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._wall = wall
        self._calls = LedgerCalls(MOST_CALLS)
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None

    async def get(self, key: bytes) -> bytes | None:
        """Return what is stored and not over."""
        return await self._run(lambda connection: self._get(connection, key))

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Store a value, and delete what is over and the oldest until there is room."""
        await self._run(lambda connection: self._put(connection, key, value, ttl_s))

    async def close(self) -> None:
        """Close the file."""
        await self._calls.run(self._close)

    async def _run(self, work: Callable[[apsw.Connection], bytes | None]) -> bytes | None:
        try:
            return await self._calls.run(self._work, work)
        except LedgerUnavailableError as error:
            raise StoreUnavailableError(f"{self._path}: {MOST_CALLS} calls hang") from error
        except (apsw.Error, OSError) as error:
            raise StoreUnavailableError(f"{self._path}: {type(error).__name__}: {error}") from error

    def _work(self, work: Callable[[apsw.Connection], bytes | None]) -> bytes | None:
        with self._lock:
            if self._connection is None:
                self._connection = _opened(self._path)
            return work(self._connection)

    def _get(self, connection: apsw.Connection, key: bytes) -> bytes | None:
        row = connection.execute(_GET, (key, self._now_ms())).fetchone()
        return None if row is None else bytes(row[0])

    def _put(self, connection: apsw.Connection, key: bytes, value: bytes, ttl_s: float) -> None:
        now_ms = self._now_ms()
        with connection:
            connection.execute("DELETE FROM answers WHERE expires_ms <= ?", (now_ms,))
            connection.execute(_PUT, (key, now_ms + int(ttl_s * 1000), len(value), value))
            oldest = connection.execute(_TOO_OLD, (self._most_bytes,)).fetchone()
            if oldest is not None and oldest[0] is not None:
                connection.execute("DELETE FROM answers WHERE id <= ?", oldest)

    def _close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)


def _opened(path: Path) -> apsw.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_MS)
    for pragma in ("journal_mode = WAL", "synchronous = OFF"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(_SCHEMA)
    return connection
