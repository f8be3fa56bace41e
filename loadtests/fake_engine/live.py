"""The batch on a real clock: requests come in, tokens go out to whoever waits for them.

One task steps the batch for as long as there is work. A request's tokens are announced in order; a reader that leaves
takes its request out of the batch. Steps are due at fixed moments after one another, so a late wake-up is made up for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from loadtests.fake_engine.batch import Batch, Sequence


@dataclass(slots=True)
class Counters:
    """Totals since the start, for the metrics page; seconds are the engine's own (as slow as it plays)."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    rejections: int = 0
    finished: int = 0
    first_tokens: int = 0
    first_token_s: float = 0.0


@dataclass(slots=True)
class _Reader:
    sequence: Sequence
    arrived: float
    news: asyncio.Event = field(default_factory=asyncio.Event)


class LiveEngine:
    """`scale` stretches all times (2: half as fast); `queue_cap`: requests that may wait, more are refused."""

    def __init__(self, batch: Batch, scale: float = 1.0, queue_cap: int = 512) -> None:
        self.batch = batch
        self.counters = Counters()
        self._scale = scale
        self._queue_cap = queue_cap
        self._readers: dict[int, _Reader] = {}
        self._work = asyncio.Event()

    def admit(self, prompt_tokens: int, output_tokens: int) -> Sequence | None:
        """A sequence in the queue, or None when the queue is full. ValueError: the prompt can never fit."""
        if len(self.batch.waiting) >= self._queue_cap:
            self.counters.rejections += 1
            return None
        sequence = Sequence(prompt_tokens, max(1, output_tokens))
        self.batch.add(sequence)
        self.counters.prompt_tokens += prompt_tokens
        self._readers[id(sequence)] = _Reader(sequence, asyncio.get_running_loop().time())
        self._work.set()
        return sequence

    async def progress(self, sequence: Sequence) -> AsyncIterator[int]:
        """How many tokens are out, whenever there are more, up to the last one."""
        reader = self._readers[id(sequence)]
        told = 0
        while not sequence.done or told < sequence.produced:
            await reader.news.wait()
            reader.news.clear()
            if sequence.produced > told:
                told = sequence.produced
                yield told

    def leave(self, sequence: Sequence) -> None:
        """The reader has all it wanted or is gone."""
        self._readers.pop(id(sequence), None)
        self.batch.remove(sequence)

    async def run(self) -> None:
        """Step for ever."""
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            if self.batch.idle:
                self._work.clear()
                await self._work.wait()
                due = clock()
            due += self.batch.begin().duration_s * self._scale
            # After a long stall of the machine the lost time is not made up in one go.
            due = max(due, clock() - self._scale * self.batch.model.step_ms[-1][1] / 1000)
            await asyncio.sleep(max(0.0, due - clock()))
            self._deliver(clock())

    def _deliver(self, now: float) -> None:
        counters = self.counters
        for sequence in self.batch.complete():
            counters.generation_tokens += 1
            reader = self._readers.get(id(sequence))
            if reader is None:
                continue
            if sequence.produced == 1:
                counters.first_tokens += 1
                counters.first_token_s += now - reader.arrived
            counters.finished += sequence.done
            reader.news.set()
