"""The batch on a real clock: requests come in, tokens go out to the readers that wait for them.

One task steps the batch for as long as there is work. A request's tokens are announced in order; a reader that leaves
takes its request out of the batch. Steps are due at fixed moments after one another, so the engine catches up after a
late wake-up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from loadtests.fake_engine.batch import Batch, BatchedRequest


@dataclass(slots=True)
class EngineCounters:
    """Totals since the start, for the metrics page. `first_token_s` is the sum of all times to the first token."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    rejections: int = 0
    finished: int = 0
    first_tokens: int = 0
    first_token_s: float = 0.0


@dataclass(slots=True)
class _Reader:
    batched: BatchedRequest
    arrived_s: float
    progressed: asyncio.Event = field(default_factory=asyncio.Event)


class LiveEngine:
    """A batch that runs in real time.

    `scale` stretches all times (2: half as fast). `queue_cap` is the number of requests that may wait; the engine
    rejects more than that.
    """

    def __init__(self, batch: Batch, scale: float = 1.0, queue_cap: int = 512) -> None:
        self.batch = batch
        self.counters = EngineCounters()
        self._scale = scale
        self._queue_cap = queue_cap
        self._readers: dict[int, _Reader] = {}
        self._has_work = asyncio.Event()

    def admit(self, prompt_tokens: int, output_tokens: int) -> BatchedRequest | None:
        """Put a request into the queue; return None when the queue is full.

        Raises:
            ValueError: the prompt can never fit into the KV cache.
        """
        if len(self.batch.waiting) >= self._queue_cap:
            self.counters.rejections += 1
            return None
        batched = BatchedRequest(prompt_tokens, max(1, output_tokens))
        self.batch.add(batched)
        self.counters.prompt_tokens += prompt_tokens
        self._readers[id(batched)] = _Reader(batched, asyncio.get_running_loop().time())
        self._has_work.set()
        return batched

    async def progress(self, batched: BatchedRequest) -> AsyncIterator[int]:
        """Yield how many tokens have been produced, whenever there are more, up to the last one."""
        reader = self._readers[id(batched)]
        announced = 0
        while not batched.done or announced < batched.produced:
            await reader.progressed.wait()
            reader.progressed.clear()
            if batched.produced > announced:
                announced = batched.produced
                yield announced

    def leave(self, batched: BatchedRequest) -> None:
        """Forget a request whose reader has everything or is gone."""
        self._readers.pop(id(batched), None)
        self.batch.remove(batched)

    async def run(self) -> None:
        """Step the batch until cancelled."""
        clock = asyncio.get_running_loop().time
        due_s = clock()
        while True:
            if self.batch.idle:
                self._has_work.clear()
                await self._has_work.wait()
                due_s = clock()
            due_s += self.batch.begin().duration_s * self._scale
            # After a long stall of the machine the lost time is not made up in one go.
            due_s = max(due_s, clock() - self._scale * self.batch.model.step_ms[-1][1] / 1000)
            await asyncio.sleep(max(0.0, due_s - clock()))
            self._deliver(clock())

    def _deliver(self, monotonic_s: float) -> None:
        counters = self.counters
        for batched in self.batch.complete():
            counters.generation_tokens += 1
            reader = self._readers.get(id(batched))
            if reader is None:
                continue
            if batched.produced == 1:
                counters.first_tokens += 1
                counters.first_token_s += monotonic_s - reader.arrived_s
            counters.finished += batched.done
            reader.progressed.set()
