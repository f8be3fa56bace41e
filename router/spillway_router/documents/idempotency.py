"""`idempotency-key` on documents: a document that is sent twice is read, and paid, once.

An extraction with a key runs to its end even when its client leaves: somebody will come back for what may have been
paid already. The same key with the same body waits for the reply of the extraction in progress, or gets the stored
reply. Replies hold values of documents, so they are stored in this process only, never on disk; private documents are
left out (routes.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastapi.responses import Response

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.memory.idempotency import DOCUMENTS, CallerKey, IdempotencyKeys, KeyRetention
from spillway_router.proxy.request.body_digest import body_digest
from spillway_router.proxy.request.errors import RefusedError


class IdempotentExtractions:
    """Runs each keyed extraction once, and repeats its reply. `clock` is monotonic seconds; `stop` when done."""

    def __init__(self, clock: Callable[[], float], retention: KeyRetention = DOCUMENTS) -> None:
        self._clock = clock
        self._keys: IdempotencyKeys[Response] = IdempotencyKeys(retention)
        self._tasks: dict[CallerKey, asyncio.Task[Response]] = {}

    async def run(
        self, key: CallerKey, body: bytes, request_id: str, extraction: Callable[[], Awaitable[Response]]
    ) -> Response:
        """Return the reply of this extraction, or of the one that used the key before.

        Cancelling this does not stop the extraction. Raise RefusedError if the key came with another body before, and
        whatever the extraction raises.
        """
        lookup = self._keys.begin(key, await body_digest(body), request_id, self._clock())
        if isinstance(lookup, Refusal):
            raise RefusedError(lookup)
        reply = lookup.use.reply
        if reply is None:
            if not lookup.repeated:
                task = self._tasks[key] = asyncio.ensure_future(_run(extraction))
                task.add_done_callback(lambda done: self._on_done(key, done))
            reply = await asyncio.shield(self._tasks[key])
        lookup.use.delivered = True
        return reply

    async def stop(self) -> None:
        """Cancel the extractions in progress, and wait for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_done(self, key: CallerKey, task: asyncio.Task[Response]) -> None:
        del self._tasks[key]
        if task.cancelled() or task.exception() is not None or task.result().status_code != 200:
            self._keys.release(key)
        else:
            reply = task.result()
            self._keys.finish(key, reply, len(reply.body), self._clock())


async def _run(extraction: Callable[[], Awaitable[Response]]) -> Response:
    return await extraction()
