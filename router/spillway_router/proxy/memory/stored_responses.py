"""Which backend made a response of /v1/responses, and for whose key: in the ledger's database, the newest also here.

A response that a provider stores can be read, deleted or followed (`previous_response_id`) at that provider's account
only, and by nobody but the key that it was made for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable

from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.stored_responses import KEPT_MS, ResponseTable, StoredResponse

MOST_CACHED = 20_000
MOST_PENDING = 5_000
"""Responses that wait for the database; further ones are known to this process only."""
LONGEST_WAIT_S = 0.04
"""How long an answer waits for the database at most. The response is stored later then, as soon as the database can."""
MOST_AT_ONCE = 200
"""Responses that are stored in one write."""
PRUNE_EVERY = 1_000
"""After how many responses old ones are removed from the database."""
LONGEST_ID = 200
"""Characters of an id that is remembered. OpenAI's have about 60."""
_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{LONGEST_ID}}}")

log = logging.getLogger("spillway")


class StoredResponses:
    """Where responses are stored. `wall` returns epoch seconds. It belongs to one event loop.

    Responses that end while others are being written wait, and go into one write together. If the database can't be
    written, a response is known to this process only.
    """

    __slots__ = ("_cached", "_pending", "_table", "_unpruned", "_wall", "_writing")

    def __init__(self, table: ResponseTable, wall: Callable[[], float]) -> None:
        self._table = table
        self._wall = wall
        self._cached: OrderedDict[str, StoredResponse] = OrderedDict()
        self._pending: dict[str, StoredResponse] = {}
        self._writing: asyncio.Task[None] | None = None
        self._unpruned = PRUNE_EVERY

    async def add(self, response_id: str, key_id: str, backend: str, *, private: bool) -> None:
        """Remember a response. It is durable when this returns, unless the database is too slow or away.

        An id that no client could send is ignored.
        """
        if not _ID.fullmatch(response_id):
            return
        stored = StoredResponse(
            response_id=response_id, key_id=key_id, backend=backend, made_ms=int(self._wall() * 1000), private=private
        )
        self._cache(stored)
        if len(self._pending) >= MOST_PENDING:
            return
        self._pending[response_id] = stored
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                while response_id in self._pending:
                    if self._writing is None:
                        self._writing = asyncio.get_running_loop().create_task(self._write(), name="stored responses")
                    await asyncio.shield(self._writing)

    async def get(self, response_id: str) -> StoredResponse | None:
        """Return where a response is stored; None if that is not known. Raises LedgerUnavailableError."""
        if not _ID.fullmatch(response_id):
            return None
        now_ms = int(self._wall() * 1000)
        stored = self._cached.get(response_id)
        if stored is None:
            stored = await LEDGER_CALLS.run(self._table.get, response_id, now_ms, limit_s=CLIENT_LIMIT_S)
            if stored is not None:
                self._cache(stored)
        return None if stored is None or now_ms - stored.made_ms >= KEPT_MS else stored

    async def forget(self, response_id: str) -> None:
        """Forget a response that was deleted. Raises LedgerUnavailableError."""
        self._cached.pop(response_id, None)
        await LEDGER_CALLS.run(self._table.forget, response_id, limit_s=CLIENT_LIMIT_S)

    def _cache(self, stored: StoredResponse) -> None:
        self._cached[stored.response_id] = stored
        self._cached.move_to_end(stored.response_id)
        if len(self._cached) > MOST_CACHED:
            self._cached.popitem(last=False)

    async def _write(self) -> None:
        records = list(self._pending.values())[:MOST_AT_ONCE]
        try:
            await LEDGER_CALLS.run(self._store, records)
        except LedgerError as error:
            log.warning("%d stored responses are known to this process only: %s", len(records), error)
        finally:
            self._writing = None
            for record in records:
                if self._pending.get(record.response_id) is record:
                    del self._pending[record.response_id]

    def _store(self, records: list[StoredResponse]) -> None:
        self._table.put(records)
        self._unpruned += len(records)
        if self._unpruned >= PRUNE_EVERY:
            self._unpruned = 0
            self._table.prune(records[-1].made_ms)
