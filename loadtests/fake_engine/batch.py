"""One engine's batch, step by step: continuous batching with chunked prefill, decode first, as vLLM schedules.

The same rules and service curve as `loadtests.simulator.engine`, which skips from event to event and can't stop a
request; here every sequence is touched in every step, since each of its tokens is sent to somebody who may leave.
No clock and no I/O: the caller waits for `Step.duration_s` between `begin` and `complete`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from loadtests.simulator.engine import EngineModel


@dataclass(slots=True, eq=False)
class Sequence:
    """One request in the engine: tokens of its prompt and of its answer (at least 1), and how far it is."""

    prompt_tokens: int
    output_tokens: int
    prefilled: int = 0
    produced: int = 0
    kv_tokens: int = 0

    @property
    def done(self) -> bool:
        """Whether all of its answer is out."""
        return self.produced >= self.output_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration: its batched tokens and how long it takes."""

    tokens: int
    duration_s: float


class Batch:
    """Sequences waiting and running. Call `add` and `remove` any time, `begin` and `complete` in turns."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.kv_tokens = 0
        self.steps = 0
        self._step_s = model.step_times_s()
        self._kv_s_per_token = model.kv_bytes_per_token / model.kv_bytes_per_s
        self._kv_admission = model.kv_admission_share * model.kv_capacity_tokens
        self._gets_token: list[Sequence] = []

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not (self.waiting or self.running)

    @property
    def longest_prompt(self) -> int:
        """Prompt tokens above which a request would wait for ever."""
        return int(self._kv_admission)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0 to 1."""
        return min(1.0, self.kv_tokens / self.model.kv_capacity_tokens)

    def add(self, sequence: Sequence) -> None:
        """Put a request in the queue. ValueError: its prompt can never fit."""
        if sequence.prompt_tokens > self._kv_admission:
            raise ValueError(f"{sequence.prompt_tokens} prompt tokens never fit; the most are {self.longest_prompt}")
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a request out, wherever it is; does nothing for one that has left."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.kv_tokens -= sequence.kv_tokens
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def begin(self) -> Step:
        """Fill one batch."""
        decoding = [one for one in self.running if one.produced]
        for one in decoding:
            one.kv_tokens += 1
        self.kv_tokens += len(decoding)
        budget = self.model.batched_tokens - len(decoding)
        ended: list[Sequence] = []
        taken = self._prefill(budget, ended)
        tokens = len(decoding) + taken
        self._gets_token = decoding + ended
        duration = self._step_s[tokens] + self.kv_tokens * self._kv_s_per_token + self.model.overhead_s
        return Step(tokens, duration)

    def _prefill(self, budget: int, ended: list[Sequence]) -> int:
        """Give chunks to running prompts, then let waiting ones in; first come, first served."""
        taken = 0
        for one in self.running:
            if taken < budget and one.prefilled < one.prompt_tokens:
                taken += self._chunk(one, budget - taken, ended)
        while self.waiting and taken < budget and len(self.running) < self.model.sequences:
            one = self.waiting[0]
            if self.kv_tokens + one.prompt_tokens > self._kv_admission:
                break
            self.running.append(self.waiting.popleft())
            one.kv_tokens = one.prompt_tokens
            self.kv_tokens += one.prompt_tokens
            taken += self._chunk(one, budget - taken, ended)
        return taken

    @staticmethod
    def _chunk(one: Sequence, room: int, ended: list[Sequence]) -> int:
        chunk = min(one.prompt_tokens - one.prefilled, room)
        one.prefilled += chunk
        if one.prefilled == one.prompt_tokens:
            ended.append(one)
        return chunk

    def complete(self) -> list[Sequence]:
        """End the step: the sequences that got a token, each with `produced` counted up; done ones have left."""
        self.steps += 1
        here = set(map(id, self.running))
        progressed = [one for one in self._gets_token if id(one) in here]
        self._gets_token = []
        for one in progressed:
            one.produced += 1
            if one.done:
                self.remove(one)
        return progressed
