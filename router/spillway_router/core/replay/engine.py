"""The engine: continuous batching by iteration, as vLLM does it, with a service curve instead of a GPU.

Each iteration takes one token of every decoding sequence first, then fills the token budget with prefill
chunks, first come, first served. A waiting request enters when a sequence slot and token budget are free
and its prompt fits under the admission share of the KV cache. An iteration over n batched tokens lasts

    step_time(n) + KV bytes in use / memory bandwidth + overhead

Sequences that only decode are not touched one by one: each has a known last iteration and waits for it in a
heap, so an iteration costs O(what changes). While nothing else changes, `coast` does many iterations in one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Generic, Protocol, TypeVar

A100_LLAMA_8B_STEP_MS = (
    (1, 9.8),
    (64, 11.4),
    (128, 13.5),
    (256, 20.0),
    (512, 35.5),
    (1024, 77.0),
    (2048, 150.0),
    (4096, 281.0),
)
"""Batched tokens and the milliseconds of one step: Llama-3-8B on an A100, measured elsewhere."""


class EngineRequest(Protocol):
    """What the engine must know of a request. Numbers rise in the order of arrival."""

    @property
    def number(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


Request = TypeVar("Request", bound=EngineRequest)


@dataclass(frozen=True, slots=True)
class EngineModel:
    """The service curve and the limits of one engine."""

    step_ms: tuple[tuple[int, float], ...] = A100_LLAMA_8B_STEP_MS
    kv_bytes_per_token: int = 128 * 1024
    kv_bytes_per_s: float = 1.5e12
    overhead_s: float = 0.001
    batched_tokens: int = 2048
    sequences: int = 256
    kv_capacity_tokens: int = 200_000
    kv_admission_share: float = 0.95

    def step_times_s(self) -> list[float]:
        """Return the seconds of one step by batched tokens, 0 to `batched_tokens`, linear between the points."""
        times = [self.step_ms[0][1] / 1000]
        for (n0, ms0), (n1, ms1) in zip(((0, self.step_ms[0][1]), *self.step_ms), self.step_ms, strict=False):
            times += [(ms0 + (ms1 - ms0) * (n - n0) / (n1 - n0)) / 1000 for n in range(n0 + 1, n1 + 1)]
        if len(times) <= self.batched_tokens:
            raise ValueError(f"step_ms ends at {len(times) - 1} tokens, batched_tokens is {self.batched_tokens}")
        return times

    def slower(self, factor: float) -> EngineModel:
        """Return the same engine on a GPU for which everything takes `factor` times as long."""
        return replace(
            self,
            step_ms=tuple((tokens, factor * ms) for tokens, ms in self.step_ms),
            kv_bytes_per_s=self.kv_bytes_per_s / factor,
            overhead_s=self.overhead_s * factor,
        )

    @property
    def longest_prompt(self) -> int:
        """The most prompt tokens of a request that does not wait for ever."""
        return int(self.kv_admission_share * self.kv_capacity_tokens)


@dataclass(frozen=True, slots=True)
class Gauges:
    """What the engine would export at one moment; `busy_s` is the time that it has worked so far."""

    waiting: int
    running: int
    kv_usage: float
    busy_s: float


@dataclass(frozen=True, slots=True)
class Iteration:
    """One step under way: its batched tokens, and how many of them are prefill."""

    tokens: int
    prefill_tokens: int
    duration_s: float


@dataclass(slots=True)
class _Prefill(Generic[Request]):
    request: Request
    left: int


@dataclass(slots=True)
class Completed(Generic[Request]):
    """The outcome of one iteration."""

    first_tokens: list[Request] = field(default_factory=list)
    finished: list[Request] = field(default_factory=list)


class SimulatedEngine(Generic[Request]):
    """The state of one engine. Call `submit` at any time, and `begin` and `complete` in turns."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.kv_tokens = 0
        self.busy_s = 0.0
        self.prefilled_tokens = 0
        self.decoded_tokens = 0
        self._step_s = model.step_times_s()
        self._longest_prompt = model.longest_prompt
        self._kv_s_per_token = model.kv_bytes_per_token / model.kv_bytes_per_s
        self._waiting: deque[Request] = deque()
        self._prefilling: deque[_Prefill[Request]] = deque()
        self._decoding: list[tuple[int, int, Request]] = []
        self._ended_prefill: list[Request] = []
        self._iteration = 0

    @property
    def idle(self) -> bool:
        """Return whether the engine has no request."""
        return not (self._waiting or self._prefilling or self._decoding)

    def gauges(self, busy_s: float) -> Gauges:
        """Return the engine's state now. The caller counts `busy_s`, which includes the running iteration."""
        running = len(self._prefilling) + len(self._decoding)
        return Gauges(
            waiting=len(self._waiting),
            running=running,
            kv_usage=self.kv_tokens / self.model.kv_capacity_tokens,
            busy_s=busy_s,
        )

    def submit(self, request: Request) -> None:
        """Put a request into the queue.

        Raises:
            ValueError: its prompt can never fit.
        """
        if request.prompt_tokens > self._longest_prompt:
            raise ValueError(f"request {request.number}: {request.prompt_tokens} prompt tokens never fit the KV cache")
        self._waiting.append(request)

    def begin(self) -> Iteration:
        """Fill one batch and return how long it will take."""
        decoding = len(self._decoding)
        budget = self.model.batched_tokens - decoding
        self.kv_tokens += decoding
        self.decoded_tokens += decoding
        prefill = self._continue_prefill(budget)
        prefill += self._admit(budget - prefill)
        self.prefilled_tokens += prefill
        tokens = decoding + prefill
        duration = self._step_s[tokens] + self.kv_tokens * self._kv_s_per_token + self.model.overhead_s
        self.busy_s += duration
        return Iteration(tokens, prefill, duration)

    def complete(self) -> Completed[Request]:
        """End the current iteration; return which requests got their first token and which are done."""
        done: Completed[Request] = Completed()
        while self._decoding and self._decoding[0][0] == self._iteration:
            self._retire(heappop(self._decoding)[2], done)
        for request in self._ended_prefill:
            done.first_tokens.append(request)
            self.decoded_tokens += 1
            if request.output_tokens <= 1:
                self._retire(request, done, kv_tokens=request.prompt_tokens)
            else:
                last = self._iteration + request.output_tokens - 1
                heappush(self._decoding, (last, request.number, request))
        self._ended_prefill.clear()
        self._iteration += 1
        return done

    def coasting_steps(self) -> int:
        """Return how many iterations from now on only decode and end no answer; 0 if the next one does otherwise."""
        if self._waiting or self._prefilling or self._ended_prefill or not self._decoding:
            return 0
        return self._decoding[0][0] - self._iteration

    def coasted_s(self, steps: int) -> float:
        """Return how long so many of these iterations take: each reads a KV cache that has grown by a token of every
        sequence."""
        decoding = len(self._decoding)
        kv_tokens = steps * self.kv_tokens + decoding * (steps * (steps + 1) // 2)
        return steps * (self._step_s[decoding] + self.model.overhead_s) + kv_tokens * self._kv_s_per_token

    def coast(self, steps: int) -> None:
        """Do so many of the iterations of `coasting_steps` at once, instead of by `begin` and `complete` in turns."""
        decoding = len(self._decoding)
        self.busy_s += self.coasted_s(steps)
        self.kv_tokens += steps * decoding
        self.decoded_tokens += steps * decoding
        self._iteration += steps

    def _retire(self, request: Request, done: Completed[Request], kv_tokens: int | None = None) -> None:
        # The last token is never read back, so it takes no KV; the one from the prefill does once decoding
        # starts.
        held = request.prompt_tokens + request.output_tokens - 1 if kv_tokens is None else kv_tokens
        self.kv_tokens -= held
        done.finished.append(request)

    def _continue_prefill(self, budget: int) -> int:
        taken = 0
        while self._prefilling and taken < budget:
            entry = self._prefilling[0]
            chunk = min(entry.left, budget - taken)
            taken += chunk
            entry.left -= chunk
            if entry.left == 0:
                self._ended_prefill.append(self._prefilling.popleft().request)
        return taken

    def _admit(self, budget: int) -> int:
        """Let waiting requests in while budget, slots and KV suffice; return the prefill tokens that they took."""
        taken = 0
        running = len(self._prefilling) + len(self._decoding) + len(self._ended_prefill)
        while self._waiting and taken < budget and running < self.model.sequences:
            request = self._waiting[0]
            if self.kv_tokens + request.prompt_tokens > self._longest_prompt:
                break
            self._waiting.popleft()
            running += 1
            self.kv_tokens += request.prompt_tokens
            chunk = min(request.prompt_tokens, budget - taken)
            taken += chunk
            if chunk == request.prompt_tokens:
                self._ended_prefill.append(request)
            else:
                self._prefilling.append(_Prefill(request, request.prompt_tokens - chunk))
        return taken
