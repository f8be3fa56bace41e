"""Streamed chat requests, timed. They come from several processes, so that the client is not what is measured."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import uvloop

PATIENCE_S = 90.0
PROCESSES = 4
_WORDS = ("lens", "axial", "length", "clinic", "visit", "eyes", "note", "plan", "signal", "error", "left", "right")


@dataclass(frozen=True, slots=True)
class Ask:
    """What is sent: port, model, words of the prompt, output tokens, and further headers."""

    port: int
    model: str
    words: int = 40
    output: int = 128
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client got: when it asked (s), status (0: none), backend, events with content, seconds to the first and
    to the end."""

    at_s: float
    status: int
    backend: str
    events: int
    first_s: float
    total_s: float
    whole: bool
    private: bool = False


async def send(ask: Ask, since_s: float, seed: int) -> Reply:
    """Ask once, on a new connection."""
    began_s = time.monotonic()
    private = "x-spillway-privacy" in ask.headers
    try:
        async with asyncio.timeout(PATIENCE_S):
            status, backend, events, first_s, whole = await _exchange(ask, began_s, seed)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        status, backend, events, first_s, whole = 0, "", 0, 0.0, False
    total_s = time.monotonic() - began_s
    return Reply(
        at_s=began_s - since_s,
        status=status,
        backend=backend,
        events=events,
        first_s=first_s or total_s,
        total_s=total_s,
        whole=whole,
        private=private,
    )


async def _exchange(ask: Ask, began_s: float, seed: int) -> tuple[int, str, int, float, bool]:
    reader, writer = await asyncio.open_connection("127.0.0.1", ask.port)
    try:
        writer.write(_request(ask, seed))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        events, first_s, tail = 0, 0.0, b""
        while b"[DONE]" not in tail and (chunk := await reader.read(65536)):
            # The event that opens a stream has a role and empty content.
            new = max(0, chunk.count(b'"content":"') - chunk.count(b'"role"'))
            if new and not events:
                first_s = time.monotonic() - began_s
            events += new
            tail = (tail + chunk)[-64:]
        return int(head[0].split(" ")[1]), headers.get("x-spillway-backend", ""), events, first_s, b"[DONE]" in tail
    finally:
        writer.close()


def _request(ask: Ask, seed: int) -> bytes:
    rng = random.Random(seed)
    text = f"{rng.randrange(10**8):08d} " + " ".join(rng.choices(_WORDS, k=ask.words))
    fields: dict[str, Any] = {
        "model": ask.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": ask.output,
        "ignore_eos": True,
        "stream": True,
    }
    body = json.dumps(fields).encode()
    more = "".join(f"{name}: {value}\r\n" for name, value in ask.headers.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def at_once(ask: Ask, count: int, seed: int) -> list[Reply]:
    """Send `count` requests at once and return all replies."""
    shares = [count // PROCESSES + (number < count % PROCESSES) for number in range(PROCESSES)]
    return _in_processes(_burst, [(ask, share, seed + 1000 * i) for i, share in enumerate(shares) if share])


def offered(ask: Ask, per_s: float, seconds: float, seed: int, private_every: int = 0) -> list[Reply]:
    """Send requests at random times at this mean rate, whatever becomes of them; every nth is private."""
    each = per_s / PROCESSES
    return _in_processes(_offer, [(ask, each, seconds, seed + 1000 * i, private_every) for i in range(PROCESSES)])


def _in_processes(work: Any, jobs: Sequence[tuple[Any, ...]]) -> list[Reply]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(jobs), mp_context=context) as pool:
        return [reply for part in [pool.submit(work, *job) for job in jobs] for reply in part.result()]


def _burst(ask: Ask, count: int, seed: int) -> list[Reply]:
    async def run() -> list[Reply]:
        since_s = time.monotonic()
        return list(await asyncio.gather(*(send(ask, since_s, seed + number) for number in range(count))))

    return uvloop.run(run())


def _offer(ask: Ask, per_s: float, seconds: float, seed: int, private_every: int) -> list[Reply]:
    private = replace(ask, headers={**ask.headers, "x-spillway-privacy": "local-only"})

    async def run() -> list[Reply]:
        rng, tasks, due_s, since_s = random.Random(seed), list[asyncio.Task[Reply]](), 0.0, time.monotonic()
        while due_s < seconds:
            await asyncio.sleep(max(0.0, since_s + due_s - time.monotonic()))
            number = len(tasks)
            chosen = private if private_every and number % private_every == 0 else ask
            tasks.append(asyncio.create_task(send(chosen, since_s, seed + number)))
            due_s += rng.expovariate(per_s)
        return list(await asyncio.gather(*tasks))

    return uvloop.run(run())


def summary(replies: Sequence[Reply], slo_s: float, output: int) -> dict[str, Any]:
    """Return the figures of replies of `output` tokens each: answers by status and backend, times, tokens/s."""
    whole = [reply for reply in replies if reply.whole and reply.status == 200]
    first = sorted(reply.first_s for reply in whole)
    refused = sorted(1000 * reply.total_s for reply in replies if reply.status == 503)
    paces = [1000 * (r.total_s - r.first_s) / (output - 1) for r in whole]
    ends = [reply.at_s + reply.total_s for reply in whole]
    names = [f"{r.status} {r.backend}{' private' if r.private else ''}".strip() for r in replies]
    return {
        "n": len(replies),
        "answers": {name: names.count(name) for name in sorted(set(names))},
        "whole_in_time": sum(reply.first_s <= slo_s for reply in whole),
        "first_p50_s": _share(first, 0.5),
        "first_p99_s": _share(first, 0.99),
        "tpot_p50_ms": round(median(paces), 3) if paces else None,
        "tokens_per_s": round(output * len(whole) / max(ends), 1) if ends else 0.0,
        "refusal_p50_ms": _share(refused, 0.5),
        "refusal_p99_ms": _share(refused, 0.99),
        "refused": len(refused),
    }


def _share(values: Sequence[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 4) if values else None
