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
from pathlib import Path
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
LEAST_SAMPLES = 3
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


def rss_slope(say: Callable[[str], None], requests: int = REQUESTS, seconds: float = SOAK_S) -> dict[str, Measurement]:
    """Measure the growth of the router's memory per million requests of mixed traffic, as fast as it goes: the upper
    end of the 95% interval of a line through the samples. It stops after `seconds`, with fewer requests."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        statuses, samples = runner.run(_soak(requests, seconds))
    asked = sum(statuses.values())
    kept = [sample for sample in samples if sample[0] >= WARM * asked]
    if len(kept) < LEAST_SAMPLES:
        return {SLOPE: not_measured(f"{asked} requests were over after {len(kept)} looks at the memory")}
    slope, upper = line(kept)
    details = {
        "statuses": dict(statuses),
        "slope_mib_per_million": round(slope, 2),
        "first_mib": round(kept[0][1], 1),
        "last_mib": round(kept[-1][1], 1),
        "samples": len(kept),
        "seconds": round(len(samples) * SAMPLE_S),
        "wanted_requests": requests,
    }
    say(f"  {asked} requests: {details}")
    return {SLOPE: Measurement(round(upper, 2), asked, details)}


def line(samples: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return the slope of a line through (requests, MiB), per million, and the upper end of its 95% interval."""
    count = len(samples)
    mean_x, mean_y = sum(x for x, _ in samples) / count, sum(y for _, y in samples) / count
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread
    errors = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in samples)
    deviation = math.sqrt(errors / (count - 2) / spread)
    return slope * 1e6, (slope + 1.96 * deviation) * 1e6


async def _soak(requests: int, seconds: float) -> tuple[Counter[str], list[tuple[int, float]]]:
    samples: list[tuple[int, float]] = []
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
                    samples.append((traffic.statuses.total(), router.memory_info().rss / 2**20))
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
