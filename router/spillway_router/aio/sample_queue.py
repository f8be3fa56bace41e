"""A queue for what is done in the background, bounded in number and bytes, with the workers that take from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from spillway_router.aio.enduring import Enduring
from spillway_router.aio.unexpected import UNEXPECTED, Place

Sample = TypeVar("Sample")
MOST_WAITING = 64
MOST_WAITING_BYTES = 16 * 1024 * 1024


class SampleQueue(Generic[Sample]):
    """Holds samples until a worker takes them. `size` returns the bytes of one. Belongs to one event loop.

    Whatever a worker's work raises is noted as an unexpected error of `place`, and the worker goes on.
    """

    def __init__(self, name: str, place: Place, size: Callable[[Sample], int]) -> None:
        self._name, self._place, self._size = name, place, size
        self._waiting: asyncio.Queue[Sample] = asyncio.Queue(MOST_WAITING)
        self._waiting_bytes = 0
        self._workers: list[Enduring] = []

    def offer(self, sample: Sample) -> bool:
        """Take a sample, and return True, unless too much waits already. Never waits."""
        size = self._size(sample)
        if self._waiting.full() or self._waiting_bytes + size > MOST_WAITING_BYTES:
            return False
        self._waiting_bytes += size
        self._waiting.put_nowait(sample)
        return True

    def start(self, count: int, work: Callable[[Sample], Awaitable[object]]) -> None:
        """Start so many workers, which do `work` for one sample after the other."""
        self._workers = [Enduring(self._name, partial(self._work, work)) for _ in range(count)]
        for worker in self._workers:
            worker.start()

    async def stop(self) -> None:
        """Stop the workers. The work under way is cancelled, what waits is forgotten."""
        workers, self._workers = self._workers, []
        for worker in workers:
            await worker.stop()

    async def settled(self) -> None:
        """Wait until nothing waits and all work is done (for tests)."""
        await self._waiting.join()

    async def _work(self, work: Callable[[Sample], Awaitable[object]]) -> None:
        while True:
            sample = await self._waiting.get()
            self._waiting_bytes -= self._size(sample)
            try:
                await work(sample)
            except Exception as error:
                UNEXPECTED.note(self._place, error, "%s: one failed unexpectedly", self._name)
            finally:
                self._waiting.task_done()
