"""Puts load on the router: open loop (documents come when they are due) or closed loop (so many at a time)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence

import httpx

from loadtests.demo.client import REQUEST_TIMEOUT_S, Result, send
from loadtests.demo.workload import Job

MAX_CONNECTIONS = 1000

Watch = Callable[[Counter[str]], None]


def open_client(url: str) -> httpx.AsyncClient:
    """A client whose pool never holds a document back: the load is meant to be open."""
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=100, keepalive_expiry=4)
    return httpx.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False)


async def run_open(client: httpx.AsyncClient, jobs: Sequence[Job], watch: Watch) -> list[Result]:
    """Send every job at its moment, whatever is still in flight; results in the order of `jobs`.

    `watch` gets the running counts ("sent", "failed", and each decision) after every change.
    """
    clock = asyncio.get_running_loop().time
    start = clock() + 0.05
    counts: Counter[str] = Counter()

    async def one(job: Job) -> Result:
        due = start + job.at_s
        await asyncio.sleep(max(0.0, due - clock()))
        counts["sent"] += 1
        watch(counts)
        return _count(counts, await send(client, job, due), watch)

    return await _gather([one(job) for job in jobs])


async def run_closed(client: httpx.AsyncClient, jobs: Sequence[Job], at_once: int, watch: Watch) -> list[Result]:
    """Send the jobs with at most `at_once` in flight; results in the order of `jobs`."""
    clock = asyncio.get_running_loop().time
    slots = asyncio.Semaphore(at_once)
    counts: Counter[str] = Counter()

    async def one(job: Job) -> Result:
        async with slots:
            counts["sent"] += 1
            watch(counts)
            return _count(counts, await send(client, job, clock()), watch)

    return await _gather([one(job) for job in jobs])


def _count(counts: Counter[str], result: Result, watch: Watch) -> Result:
    counts["done"] += 1
    counts[result.decision if result.answered else "failed"] += 1
    watch(counts)
    return result


async def _gather(work: Sequence[Coroutine[None, None, Result]]) -> list[Result]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in work]
    return [task.result() for task in tasks]
