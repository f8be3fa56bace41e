"""Which sessions are private: all of them in memory, and durably in the ledger's database.

A request of an ordinary session costs a look into a dictionary. Only where a session's content is about to leave for a
cloud is the database asked as well, because another router of the same ledger may have heard something private a moment
ago; requests that wait for it are asked for together.

A key has at most `most_per_key` private sessions. Beyond them every further session of that key counts as private for
as long as private sessions are kept: no caller can make the router forget a private session, its own or another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from spillway_router.aio.tasks import end
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.private_sessions import (
    DAY_MS,
    KEPT_DAYS,
    PrivateSession,
    PrivateSessionTable,
    session_digest,
)

MOST_PER_KEY = 100_000
"""About 11 MB of memory."""
MOST_AT_ONCE = 500
"""Sessions that are stored in one write, or asked for in one query."""
LONGEST_WAIT_S = 2.0
"""How long a request waits for the database at most. While the database is away, only one in this time waits."""
RETRY_S = 1.0

log = logging.getLogger("spillway")


class _Question:
    """Sessions that wait for the database's answer."""

    __slots__ = ("answered", "digests")

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self.answered = asyncio.Event()


class PrivateSessions:
    """The private sessions of all keys. `wall` returns epoch seconds. It belongs to one event loop."""

    def __init__(self, table: PrivateSessionTable, wall: Callable[[], float], most_per_key: int = MOST_PER_KEY) -> None:
        self._table = table
        self._wall = wall
        self._most_per_key = most_per_key
        self._days: dict[str, dict[bytes, int]] = {}
        """The UTC day on which each private session was seen last, by key and digest."""
        self._forgot_day = 0
        self._prunes = False
        self._unwritten: dict[str, PrivateSession] = {}
        self._written = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._away = False
        """Whether the database could not be written in time."""
        self._question: _Question | None = None
        self._asking = asyncio.Lock()
        self._askers: set[asyncio.Task[None]] = set()

    def load(self) -> None:
        """Read all private sessions. Raises LedgerError."""
        for record in self._table.all(int(self._wall() * 1000)):
            self._note(record)

    def is_private(self, key_id: str, session_id: str) -> bool:
        """Return whether the session is private, as far as this router knows, or counts as such."""
        if key_id not in self._days:
            return False
        digests = session_digest(key_id, session_id), session_digest(key_id, "")
        return any(self._holds(key_id, digest) for digest in digests)

    def mark(self, key_id: str, session_id: str) -> None:
        """Make a session private from now on, or note that a private one goes on."""
        now_ms = int(self._wall() * 1000)
        self._forget(now_ms // DAY_MS)
        digest = session_digest(key_id, session_id)
        is_full = len(self._days.get(key_id, ())) >= self._most_per_key and not self._holds(key_id, digest)
        if is_full:
            digest = session_digest(key_id, "")
        record = PrivateSession(digest, key_id, now_ms)
        if self._days.get(key_id, {}).get(bytes.fromhex(digest)) == now_ms // DAY_MS:
            return
        if is_full:
            log.warning(
                "key %r has %d private sessions: until %d days pass without a further one, all its other sessions count"
                " as private", key_id, self._most_per_key, KEPT_DAYS,
            )  # fmt: skip
        self._note(record)
        self._unwritten[digest] = record
        self._written.clear()
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write(), name="private sessions")

    async def stored(self) -> None:
        """Wait until what was marked is on disk, unless the database is too slow or away; it is stored later then."""
        if not self._unwritten or self._away:
            return
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._written.wait()
        except TimeoutError:
            self._away = True

    async def is_private_anywhere(self, key_id: str, session_id: str) -> bool:
        """Return whether the session is private for any router of the ledger; True if the database can't tell."""
        if self.is_private(key_id, session_id):
            return True
        question = self._question
        if question is None:
            question = self._question = _Question()
            asker = asyncio.get_running_loop().create_task(self._ask(question), name="private sessions")
            self._askers.add(asker)
            asker.add_done_callback(self._askers.discard)
        question.digests |= {session_digest(key_id, session_id), session_digest(key_id, "")}
        if len(question.digests) >= MOST_AT_ONCE:
            self._question = None
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await question.answered.wait()
        except TimeoutError:
            return True
        return not question.digests or self.is_private(key_id, session_id)

    async def stop(self) -> None:
        """Write what is not stored yet, within the longest wait."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                while self._unwritten:
                    await self._written.wait()
        for task in (self._writer, *self._askers):
            await end(task)

    def _holds(self, key_id: str, digest: str) -> bool:
        day = self._days.get(key_id, {}).get(bytes.fromhex(digest))
        return day is not None and self._wall() * 1000 // DAY_MS - day <= KEPT_DAYS

    def _note(self, record: PrivateSession) -> None:
        days = self._days.setdefault(record.key_id, {})
        digest, day = bytes.fromhex(record.digest), record.seen_ms // DAY_MS
        days[digest] = max(day, days.get(digest, day))

    def _forget(self, today: int) -> None:
        """Once a day, forget the sessions that were seen too long ago."""
        if self._forgot_day == today:
            return
        self._forgot_day, self._prunes = today, True
        for key_id, days in self._days.items():
            self._days[key_id] = {digest: day for digest, day in days.items() if today - day <= KEPT_DAYS}

    async def _write(self) -> None:
        try:
            while self._unwritten:
                records = list(self._unwritten.values())[:MOST_AT_ONCE]
                try:
                    await asyncio.to_thread(self._store, records)
                except LedgerError as error:
                    if not self._away:
                        log.warning("new private sessions are known to this router only: %s", error)
                    self._away = True
                    await asyncio.sleep(RETRY_S)
                    continue
                self._away = False
                for record in records:
                    if self._unwritten.get(record.digest) is record:
                        del self._unwritten[record.digest]
            self._written.set()
        finally:
            self._writer = None

    def _store(self, records: list[PrivateSession]) -> None:
        self._table.put(records)
        if self._prunes:
            self._prunes = False
            self._table.prune(records[-1].seen_ms)

    async def _ask(self, question: _Question) -> None:
        """Ask the database; `question.digests` is empty afterwards if it could not tell."""
        async with self._asking:
            if self._question is question:
                self._question = None  # who comes now waits for the next one
            try:
                digests = sorted(question.digests)
                records = await asyncio.to_thread(self._table.among, digests, int(self._wall() * 1000))
            except LedgerError:
                question.digests.clear()
            else:
                for record in records:
                    self._note(record)
            finally:
                question.answered.set()
