"""Sends requests to one engine and times them: prompts alone and together, decoding at rising loads and contexts."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import httpx

from loadtests.gpu_profile.fit import Decode, steady_step

TIMEOUT_S = 600.0
_TRIES = 4
_WORDS = ("lens", "axial", "length", "clinic", "visit", "eyes", "note", "plan", "signal", "error", "left", "right")


class ProbeError(Exception):
    """The engine could not be measured; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is measured: requests at once, longest context in tokens, output tokens per request, prompts per burst."""

    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    context: int = 4096
    output: int = 96
    prefill_prompts: int = 8
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Answered:
    """One streamed answer: the seconds from sending to each of its events, and its usage."""

    events: tuple[float, ...]
    prompt_tokens: int
    output_tokens: int

    @property
    def ttft_s(self) -> float:
        return self.events[0]


@dataclass(frozen=True, slots=True)
class LoadRow:
    """One load: throughput in tokens/s, latencies in seconds. `step_s` is None where there was no steady window."""

    sequences: int
    prompt_tokens: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_p50_s: float
    ttft_max_s: float
    tpot_p50_s: float
    tpot_max_s: float
    step_s: float | None
    kv_tokens: float


@dataclass(frozen=True, slots=True)
class Probed:
    """All measurements. `alone` has (prompt tokens, seconds to the first token) of single prompts."""

    prefill_tokens_per_s: float
    alone: tuple[tuple[int, float], ...]
    rows: tuple[LoadRow, ...]

    @property
    def decodes(self) -> list[Decode]:
        """Return the steady decodings, for the fit."""
        return [Decode(r.sequences, r.kv_tokens, r.step_s) for r in self.rows if r.step_s is not None]


class Prober:
    """Sends requests to one engine. No two prompts begin alike, so that no prefix cache shortens them."""

    def __init__(self, client: httpx.AsyncClient, model: str, grid: Grid) -> None:
        self._client = client
        self._model = model
        self._grid = grid
        self._numbers = itertools.count(1)
        self._words_per_token = 1.0

    async def run(self, say: Callable[[str], None]) -> Probed:
        """Take all measurements.

        Raises:
            ProbeError: the engine fails.
        """
        first = await self._ask(100, 8)
        self._words_per_token = 100 / first.prompt_tokens
        await self._ask(64, 32)  # the first requests of an engine compile and allocate
        longest = self._grid.context - self._grid.output - 64
        alone = [await self._alone(max(16, longest * part // 8)) for part in (1, 2, 4, 8)]
        rate = await self._prefill(longest)
        say(f"  prefill {rate:,.0f} tokens/s")
        rows = []
        for sequences, context in self._loads(longest):
            rows.append(await self._steady(sequences, context))
            say(f"  {_line(rows[-1])}")
        return Probed(rate, tuple(alone), tuple(rows))

    def _loads(self, longest: int) -> list[tuple[int, int]]:
        """Return (sequences, prompt tokens): short prompts at every load, and long ones that show the cost of the KV
        cache.
        """
        short = [(n, min(32, longest)) for n in self._grid.concurrency]
        middle = self._grid.concurrency[len(self._grid.concurrency) // 2]
        return [*short, (middle, longest // 2), (middle, longest)]

    async def _alone(self, tokens: int) -> tuple[int, float]:
        tries = [await self._ask(tokens, 1) for _ in range(3)]
        return tries[0].prompt_tokens, round(median(each.ttft_s for each in tries), 5)

    async def _prefill(self, tokens: int) -> float:
        """Return the prompt tokens per second while batches are full: several long prompts at once, one output token
        each.
        """
        begun = time.perf_counter()
        answers = await asyncio.gather(*(self._ask(tokens, 1) for _ in range(self._grid.prefill_prompts)))
        return sum(each.prompt_tokens for each in answers) / (time.perf_counter() - begun)

    async def _steady(self, sequences: int, prompt: int) -> LoadRow:
        """Measure one load, and repeat it where there was no steady window.

        An engine whose HTTP server is short of processor time admits requests one after the other and returns their
        tokens in bunches.
        """
        row = await self._load(sequences, prompt)
        for _ in range(_TRIES - 1):
            if row.step_s is not None:
                break
            row = await self._load(sequences, prompt)
        return row

    async def _load(self, sequences: int, prompt: int) -> LoadRow:
        # The first of several long prompts decode while the engine still reads the others, so they need room to wait.
        output = self._grid.output if prompt <= 64 else self._grid.context - prompt - 8
        output = min(output, 4 * self._grid.output)
        begun = time.perf_counter()
        sent = [self._timed(prompt, output, begun) for _ in range(sequences)]
        answers = await asyncio.gather(*sent)
        seconds = time.perf_counter() - begun
        step = steady_step([moments for _, moments in answers])
        given = [answer for answer, _ in answers]
        paces = [(a.events[-1] - a.events[0]) / max(1, len(a.events) - 1) for a in given]
        out, read = sum(a.output_tokens for a in given), sum(a.prompt_tokens for a in given)
        kv = sequences * (fmean(a.prompt_tokens for a in given) + (step[1] if step else 0.0))
        return LoadRow(
            sequences=sequences,
            prompt_tokens=round(read / sequences, 1),
            output_tokens_per_s=round(out / seconds, 1),
            total_tokens_per_s=round((out + read) / seconds, 1),
            ttft_p50_s=round(median(a.ttft_s for a in given), 5),
            ttft_max_s=round(max(a.ttft_s for a in given), 5),
            tpot_p50_s=round(median(paces), 6),
            tpot_max_s=round(max(paces), 6),
            step_s=round(step[0], 7) if step else None,
            kv_tokens=round(kv, 1),
        )

    async def _timed(self, prompt: int, output: int, since_s: float) -> tuple[Answered, Sequence[float]]:
        """Return an answer, and the moments of its tokens since `begun`."""
        sent = time.perf_counter() - since_s
        answer = await self._ask(prompt, output)
        return answer, [sent + moment for moment in answer.events]

    async def _ask(self, prompt: int, output: int) -> Answered:
        body = self._body(prompt, output)
        events: list[float] = []
        usage: dict[str, Any] = {}
        begun = time.perf_counter()
        try:
            async with self._client.stream("POST", "/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise ProbeError(f"the engine answered {answer.status_code}: {(await answer.aread())[:300]!r}")
                async for line in answer.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise ProbeError(f"the engine broke off: {event['error']}")
                    usage = event.get("usage") or usage
                    if any(map(_is_token, event["choices"])):
                        events.append(time.perf_counter() - begun)
        except httpx.HTTPError as error:
            raise ProbeError(f"the engine did not answer: {error!r}") from error
        tokens = int(usage.get("completion_tokens", len(events)))
        if not events or not usage.get("prompt_tokens"):
            raise ProbeError("an answer came without content or usage: is this an OpenAI-compatible engine?")
        return Answered(tuple(events), int(usage["prompt_tokens"]), tokens)

    def _body(self, prompt: int, output: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": self._text(prompt)}],
            "max_tokens": output,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _text(self, tokens: int) -> str:
        number = next(self._numbers)
        rng = random.Random(f"profile/{self._grid.seed}/{number}")
        count = max(1, int(tokens * self._words_per_token) - 4)
        return f"{rng.randrange(10**8):08d} " + " ".join(rng.choices(_WORDS, k=count))


def _is_token(choice: dict[str, Any]) -> bool:
    """Return whether an event stands for a token.

    A token whose text isn't complete yet has empty content and counts, too; the event that opens a stream has a role.
    """
    return "content" in choice["delta"] and "role" not in choice["delta"]


def _line(row: LoadRow) -> str:
    step = "no steady window" if row.step_s is None else f"step {1000 * row.step_s:.2f} ms"
    return (
        f"{row.sequences:4d} at once, {row.prompt_tokens:.0f} prompt tokens: {row.output_tokens_per_s:,.0f} output "
        f"tokens/s, first token p50 {1000 * row.ttft_p50_s:.0f} ms, per token p50 {1000 * row.tpot_p50_s:.2f} ms, "
        f"{step}"
    )
