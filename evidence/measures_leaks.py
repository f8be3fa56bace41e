"""What the router keeps of requests that are over: tasks and descriptors of clients that left, and memory."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import uvloop

from evidence.failures import FailingUpstream
from evidence.fast_traffic import Traffic, upstream
from evidence.results import Measurement, not_measured
from spillway_router.testing.harness import Router, local, routing, settings
from spillway_router.testing.processes import await_ready, running, write

LEAKS, SLOPE = "leaks.tasks_and_fds", "trust.soak_rss_slope"
DISCONNECTS = 10_000
WAYS = ("no byte", "half a head", "half a body", "before the answer", "after the answer began", "reset")
AT_ONCE = 64
SETTLE_S = 20.0
REQUESTS = 5_000_000
SOAK_S = 3600.0
SAMPLE_S = 1.0
WARM = 0.3
"""The share of the requests after which memory is looked at. Until then bounded stores fill: the dashboard's 60 steps
of 15 s, the ledger's page caches of 4 MiB each, and the idle connections. A run of much less than an hour ends before
they are full, and its slope holds their filling."""
BLOCKS = 20
"""Parts of the samples whose means make the line. Samples follow one another too closely to be independent: memory that
a report took stays until the next look, so an interval by their number would be too narrow."""
T_QUANTILE = 2.101
"""Of Student's distribution with BLOCKS - 2 degrees of freedom, for an interval of 95%."""
PARTS = 3
"""Parts of the samples whose slopes are told besides: what fills only once has the steepest one first."""
CLIENTS = 32
_MORE = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"


def tasks_and_fds(say: Callable[[str], None], disconnects: int = DISCONNECTS) -> dict[str, Measurement]:
    """Measure how many tasks and descriptors are left after clients left at every stage of a request."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before, after = runner.run(_after_disconnects(disconnects))
    say(f"  before {before}, after {after}")
    left = sum(max(0, after[name] - before[name]) for name in before)
    return {LEAKS: Measurement(left, disconnects, {"before": before, "after": after, "ways": list(WAYS)})}


async def _after_disconnects(count: int) -> tuple[dict[str, int], dict[str, int]]:
    async with (
        FailingUpstream(engine=True) as engine,
        routing(settings(local(engine.url), more=_MORE)) as router,
    ):
        places = asyncio.Semaphore(AT_ONCE)

        async def leave(number: int) -> None:
            async with places:
                await _leave(router.url, WAYS[number % len(WAYS)])

        await asyncio.gather(*(leave(number) for number in range(AT_ONCE)))
        before = await _settled(router, None)
        await asyncio.gather(*(leave(number) for number in range(count)))
        return before, await _settled(router, before)


async def _leave(url: str, way: str) -> None:
    """Be a client that leaves in this way."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"model": "auto", "stream": way != "reset", "messages": [{"role": "user", "content": "hi"}]})
    request = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    request += f"content-length: {len(body)}\r\n\r\n{body}"
    cut = {"no byte": 0, "half a head": 40, "half a body": len(request) - 20}.get(way, len(request))
    writer.write(request[:cut].encode())
    await writer.drain()
    if way == "after the answer began":
        await reader.read(20)
    if way == "reset":
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _settled(router: Router, before: dict[str, int] | None) -> dict[str, int]:
    """Return the tasks and descriptors once they are as before, or after a while."""
    deadline_s = time.monotonic() + (SETTLE_S if before is not None else 2.0)
    while True:
        for _, pool in router.runtime._pools.values():
            pool._clear_idle()  # kept connections are no leak
        await asyncio.sleep(0.1)
        now = {"tasks": len(asyncio.all_tasks()), "descriptors": len(os.listdir("/proc/self/fd"))}
        if time.monotonic() > deadline_s or (before is not None and all(now[name] <= before[name] for name in now)):
            return now


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at the memory after so many answers: all of it, and that of mapped files such as libraries, in MiB."""

    answers: int
    rss_mib: float
    file_mib: float


def rss_slope(say: Callable[[str], None], requests: int = REQUESTS, seconds: float = SOAK_S) -> dict[str, Measurement]:
    """Measure the growth of the router's memory per million requests of mixed traffic, as fast as it goes: the upper
    end of the 95% interval of a line through the samples. It stops after `seconds`, with fewer requests."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        statuses, samples = runner.run(_soak(requests, seconds))
    asked = sum(statuses.values())
    kept = [sample for sample in samples if sample.answers >= WARM * asked]
    if len(kept) < BLOCKS:
        return {SLOPE: not_measured(f"{asked} requests were over after {len(kept)} looks at the memory")}
    slope, upper = trend([(sample.answers, sample.rss_mib) for sample in kept])
    first, last, duration_s = kept[0], kept[-1], len(samples) * SAMPLE_S
    details = {
        "statuses": dict(statuses),
        "slope_mib_per_million": round(slope, 2),
        "slopes_of_parts": [round(each, 2) for each in _slopes_of_parts(kept)],
        "first_mib": round(first.rss_mib, 1),
        "last_mib": round(last.rss_mib, 1),
        "at_start_mib": round(samples[0].rss_mib, 1),
        "of_files_mib": [round(each.file_mib, 1) for each in (samples[0], first, last)],
        "samples": len(kept),
        "seconds": round(duration_s),
        "requests_per_s": round(asked / duration_s),
        "wanted_requests": requests,
    }
    say(f"  {asked} requests: {details}")
    return {SLOPE: Measurement(round(upper, 2), asked, details)}


def trend(samples: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the slope of a line through the means of blocks of (requests, MiB), per million, and the upper end of its
    95% interval."""
    edges = [len(samples) * number // BLOCKS for number in range(BLOCKS + 1)]
    blocks = [samples[start:end] for start, end in pairwise(edges)]
    means = [(mean(x for x, _ in block), mean(y for _, y in block)) for block in blocks]
    slope, error = _line(means)
    return slope * 1e6, (slope + T_QUANTILE * error) * 1e6


def _slopes_of_parts(samples: Sequence[Sample]) -> list[float]:
    edges = [len(samples) * number // PARTS for number in range(PARTS + 1)]
    parts = [samples[start:end] for start, end in pairwise(edges)]
    return [1e6 * _line([(sample.answers, sample.rss_mib) for sample in part])[0] for part in parts]


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of a line through the points, and its standard error."""
    mean_x, mean_y = mean(x for x, _ in points), mean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    errors = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(errors / (len(points) - 2) / spread)


async def _soak(requests: int, seconds: float) -> tuple[Counter[str], list[Sample]]:
    samples: list[Sample] = []
    with TemporaryDirectory() as folder:
        async with upstream() as engine, upstream() as paid:
            with running("route", _soak_config(Path(folder), engine, paid)) as process:
                await asyncio.to_thread(await_ready, process.url, "local")
                router, until_s = psutil.Process(process.process.pid), time.monotonic() + seconds
                traffic = Traffic(
                    process.url, lambda: traffic.statuses.total() >= requests or time.monotonic() >= until_s
                )
                clients = [asyncio.create_task(traffic.client()) for _ in range(CLIENTS)]
                while not all(client.done() for client in clients):
                    await asyncio.sleep(SAMPLE_S)
                    memory = router.memory_info()
                    taken = Sample(traffic.statuses.total(), memory.rss / 2**20, memory.shared / 2**20)
                    samples.append(taken)
                await asyncio.gather(*clients)
                await asyncio.to_thread(process.end)
    return traffic.statuses, samples


def _soak_config(folder: Path, engine: str, paid: str) -> Path:
    price = {"input_per_million": "1", "output_per_million": "2"}
    backends = [
        {"name": "local", "provider": "vllm", "local": True, "model": "m", "base_url": engine},
        {"name": "cloud", "provider": "generic", "model": "m", "base_url": paid, "api_key": "k", "price": price},
    ]
    values: dict[str, Any] = {
        "backends": backends,
        "aliases": {"auto": {"chain": ["local", "cloud"]}, "paid": {"chain": ["cloud"]}},
        "budgets": [{"scope": "all", "period": "day", "limit_usd": "100000"}],
        "slo": {"ttft_ms": 60000, "tpot_ms": 10000},
    }
    return write(folder, values)
