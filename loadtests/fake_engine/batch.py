"""One engine's batch, step by step: continuous batching with chunked prefill, decode first, as vLLM schedules.

The rules and the service curve are those of `spillway_router.core.replay.engine`, which skips from event to event and
can't stop a request. Here every step touches every request, since each token is sent to a client that may leave.
This module has no clock and does no I/O: the caller waits for `BatchStep.duration_s` between `begin` and `complete`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from spillway_router.core.replay.engine import EngineModel


@dataclass(slots=True, eq=False)
class BatchedRequest:
    """One request in the engine: the tokens of its prompt and of its answer (at least 1), and its progress."""

    prompt_tokens: int
    output_tokens: int
    prefilled: int = 0
    produced: int = 0
    kv_tokens: int = 0

    @property
    def done(self) -> bool:
        """Return whether the whole answer has been produced."""
        return self.produced >= self.output_tokens


@dataclass(frozen=True, slots=True)
class BatchStep:
    """One iteration: the number of its batched tokens and how long it takes."""

    tokens: int
    duration_s: float


class Batch:
    """The requests that wait and that run.

    Call `add` and `remove` at any time, and `begin` and `complete` in turns.
    """

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.waiting: deque[BatchedRequest] = deque()
        self.running: list[BatchedRequest] = []
        self.kv_tokens = 0
        self.steps = 0
        self._step_s = model.step_times_s()
        self._kv_s_per_token = model.kv_bytes_per_token / model.kv_bytes_per_s
        self._kv_admission = model.kv_admission_share * model.kv_capacity_tokens
        self._gets_token: list[BatchedRequest] = []

    @property
    def idle(self) -> bool:
        """Return whether there is nothing to do."""
        return not (self.waiting or self.running)

    @property
    def longest_prompt(self) -> int:
        """Return the largest number of prompt tokens with which a request does not wait for ever."""
        return int(self._kv_admission)

    @property
    def kv_usage(self) -> float:
        """Return the share of the KV cache in use, from 0 to 1."""
        return min(1.0, self.kv_tokens / self.model.kv_capacity_tokens)

    def add(self, batched: BatchedRequest) -> None:
        """Put a request into the queue.

        Raises:
            ValueError: its prompt can never fit.
        """
        if batched.prompt_tokens > self._kv_admission:
            raise ValueError(f"{batched.prompt_tokens} prompt tokens never fit; the most are {self.longest_prompt}")
        self.waiting.append(batched)

    def remove(self, batched: BatchedRequest) -> None:
        """Take out a request that waits or runs; do nothing for any other."""
        if batched in self.running:
            self.running.remove(batched)
            self.kv_tokens -= batched.kv_tokens
        elif batched in self.waiting:
            self.waiting.remove(batched)

    def begin(self) -> BatchStep:
        """Fill the batch of the next step and return that step."""
        decoding = [one for one in self.running if one.produced]
        for one in decoding:
            one.kv_tokens += 1
        self.kv_tokens += len(decoding)
        budget = self.model.batched_tokens - len(decoding)
        ended: list[BatchedRequest] = []
        taken = self._prefill(budget, ended)
        tokens = len(decoding) + taken
        self._gets_token = decoding + ended
        duration = self._step_s[tokens] + self.kv_tokens * self._kv_s_per_token + self.model.overhead_s
        return BatchStep(tokens, duration)

    def _prefill(self, budget: int, ended: list[BatchedRequest]) -> int:
        """Give chunks to running prompts, then let waiting prompts in, in their order; return the tokens given."""
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
    def _chunk(one: BatchedRequest, room: int, ended: list[BatchedRequest]) -> int:
        chunk = min(one.prompt_tokens - one.prefilled, room)
        one.prefilled += chunk
        if one.prefilled == one.prompt_tokens:
            ended.append(one)
        return chunk

    def complete(self) -> list[BatchedRequest]:
        """End the step; return the requests that got a token, counted in `produced`. Finished requests have left."""
        self.steps += 1
        here = set(map(id, self.running))
        progressed = [one for one in self._gets_token if id(one) in here]
        self._gets_token = []
        for one in progressed:
            one.produced += 1
            if one.done:
                self.remove(one)
        return progressed
