"""`idempotency-key` for documents: one that is sent twice is read, and paid, once.

Work that came with a key goes on to its end when its client leaves: somebody will come back for what may have been paid
already. Who sends the same key and the same body meanwhile waits for the same reply; who comes later gets it again. A
reply that somebody got is kept for HEARD_S, one that nobody got for UNHEARD_S, all of them in MOST_BYTES of memory,
oldest dropped first. What failed frees its key. Replies hold values of documents: they are in this process only, never
on disk, gone with it; private documents are left out (routes.py).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256

from fastapi.responses import Response

HEADER = "idempotency-key"
MOST_KEY = 256
"""Characters of a key."""
HEARD_S = 600.0
UNHEARD_S = 86_400.0
MOST_KEYS = 20_000
MOST_BYTES = 64 * 1024 * 1024

Owner = tuple[str, str]
"""Id of the API key, and the idempotency key that its user chose."""


class KeyTakenError(Exception):
    """The key came with another body before."""


@dataclass(slots=True)
class _Turn:
    digest: bytes
    task: asyncio.Task[Response]
    heard: bool = False
    ended: float | None = None
    size: int = 0

    def gone_at(self) -> float:
        """Monotonic seconds from which on it is forgotten."""
        return (self.ended or 0.0) + (HEARD_S if self.heard else UNHEARD_S)


class Repeats:
    """See the module docstring. `clock` is monotonic seconds; `stop` when done."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._turns: OrderedDict[Owner, _Turn] = OrderedDict()
        self._size = 0

    async def once(self, owner: Owner, body: bytes, work: Callable[[], Awaitable[Response]]) -> Response:
        """The reply of this work, or of the same before. Being cancelled does not stop it. Raises KeyTakenError, and
        what the work raises."""
        self._forget()
        digest = sha256(body).digest()
        turn = self._turns.get(owner)
        if turn is None:
            turn = self._turns[owner] = _Turn(digest, asyncio.ensure_future(_run(work)))
            turn.task.add_done_callback(lambda _: self._ended(owner, turn))
        elif turn.digest != digest:
            raise KeyTakenError
        reply = await asyncio.shield(turn.task)
        turn.heard = True
        return reply

    async def stop(self) -> None:
        """End what is under way."""
        tasks = [turn.task for turn in self._turns.values() if not turn.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, owner: Owner, turn: _Turn) -> None:
        if self._turns.get(owner) is not turn:
            return
        failed = turn.task.cancelled() or turn.task.exception() is not None
        if failed or turn.task.result().status_code != 200:
            del self._turns[owner]
            return
        turn.ended, turn.size = self._clock(), len(turn.task.result().body)
        self._turns.move_to_end(owner)
        self._size += turn.size
        self._forget()

    def _forget(self) -> None:
        """Drop what is too old or too much; what is under way stays."""
        now = self._clock()
        for owner, turn in list(self._turns.items()):
            over = self._size > MOST_BYTES or len(self._turns) > MOST_KEYS
            if turn.ended is not None and (over or now > turn.gone_at()):
                self._size -= turn.size
                del self._turns[owner]


async def _run(work: Callable[[], Awaitable[Response]]) -> Response:
    return await work()
