"""Puts load on the router: open loop (documents are sent when they are due) or closed loop (so many at a time)."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence

import httpx

from demo.client import REQUEST_TIMEOUT_S, DocumentResult, send
from demo.workload import DocumentJob

# httpx's pool inspects every connection for every request, so a pool of a thousand costs the machine more than the
# router does. Sixteen small pools hold as many connections.
POOLS = 16
CONNECTIONS_PER_POOL = 64

ProgressWatch = Callable[[Counter[str]], None]


class Clients:
    """Clients of one router that take turns. Together their pools never hold back a document, so
    the load stays open.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        limits = httpx.Limits(max_connections=CONNECTIONS_PER_POOL, keepalive_expiry=4)
        self._pools = [
            httpx.AsyncClient(
                base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False, verify=False
            )
            for _ in range(POOLS)
        ]
        self._turns = itertools.cycle(self._pools)

    def next(self) -> httpx.AsyncClient:
        """Return the client whose turn it is."""
        return next(self._turns)

    async def __aenter__(self) -> Clients:
        return self

    async def __aexit__(self, *_: object) -> None:
        for pool in self._pools:
            await pool.aclose()


async def run_open(clients: Clients, jobs: Sequence[DocumentJob], watch: ProgressWatch) -> list[DocumentResult]:
    """Send every job at its moment, whatever is still in flight; return the results in the order of `jobs`.

    `watch` gets the running counts ("sent", "failed", and each decision) after every change.
    """
    clock = asyncio.get_running_loop().time
    start = clock() + 0.05
    counts: Counter[str] = Counter()

    async def one(job: DocumentJob) -> DocumentResult:
        due = start + job.at_s
        await asyncio.sleep(max(0.0, due - clock()))
        counts["sent"] += 1
        watch(counts)
        return _count(counts, await send(clients.next(), job, due), watch)

    return await _gather([one(job) for job in jobs])


async def run_closed(
    clients: Clients, jobs: Sequence[DocumentJob], at_once: int, watch: ProgressWatch
) -> list[DocumentResult]:
    """Send the jobs with at most `at_once` in flight; return the results in the order of `jobs`."""
    clock = asyncio.get_running_loop().time
    slots = asyncio.Semaphore(at_once)
    counts: Counter[str] = Counter()

    async def one(job: DocumentJob) -> DocumentResult:
        async with slots:
            counts["sent"] += 1
            watch(counts)
            return _count(counts, await send(clients.next(), job, clock()), watch)

    return await _gather([one(job) for job in jobs])


def _count(counts: Counter[str], result: DocumentResult, watch: ProgressWatch) -> DocumentResult:
    counts["done"] += 1
    counts[result.decision if result.answered else "failed"] += 1
    watch(counts)
    return result


async def _gather(work: Sequence[Coroutine[None, None, DocumentResult]]) -> list[DocumentResult]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in work]
    return [task.result() for task in tasks]
