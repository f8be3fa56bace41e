"""The stages of the demo, in order: before the engine is ready, capacity, calm, burst, and the second look."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx
from rich.console import Console

from demo import show
from demo.client import DocumentResult, send
from demo.load import Clients, run_closed, run_open
from demo.processes import Child, ChildError
from demo.product import LOCAL_MODEL
from demo.workload import DocumentJob, Sizes, arrive, draw, pinned

ROUTER_TIMEOUT_S = 60.0
ENGINE_TIMEOUT_S = 200.0
AT_ONCE = 16
CALM_SHARE = 0.25
BURST_FACTOR = 2.5
_CALM_PER_S = (2.0, 12.0)
_BURST_PER_S = (40.0, 200.0)
_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """All documents of one run, except those of the second look."""

    warming: list[DocumentJob]
    capacity: list[DocumentJob]
    calm: list[DocumentJob]
    burst: list[DocumentJob]

    @property
    def all(self) -> list[DocumentJob]:
        """Return all jobs."""
        return [*self.warming, *self.capacity, *self.calm, *self.burst]


@dataclass(frozen=True, slots=True)
class Pace:
    """Rates in documents per second: the measured capacity of the engine, and the rates of calm and burst."""

    capacity: float
    calm: float
    burst: float


def plan(sizes: Sizes, seed: int) -> DocumentPlan:
    """Draw the documents of a run; every phase has its own."""
    warming = draw("warming", 0, sizes.warming, seed)
    capacity = draw("capacity", sizes.warming, sizes.capacity, seed)
    calm = draw("calm", sizes.warming + sizes.capacity, sizes.calm, seed)
    burst = draw("burst", sizes.warming + sizes.capacity + sizes.calm, sizes.burst, seed)
    local = f"local/{LOCAL_MODEL}"
    return DocumentPlan(warming=warming, capacity=pinned(capacity, "capacity", local), calm=calm, burst=burst)


def pace(capacity: float) -> Pace:
    """Return the rates: calm is a quarter of the measured capacity, the burst two and a half times it, both bounded."""
    calm = min(max(CALM_SHARE * capacity, _CALM_PER_S[0]), _CALM_PER_S[1])
    burst = min(max(BURST_FACTOR * capacity, _BURST_PER_S[0]), _BURST_PER_S[1])
    return Pace(capacity, calm, burst)


async def router_up(console: Console, clients: Clients, child: Child) -> None:
    """Wait until the router can answer.

    Raises:
        ChildError: it ends or takes too long.
    """
    with show.waiting(console, "router starts"):
        await _until(clients, child, "/ready", ROUTER_TIMEOUT_S)


async def _until(clients: Clients, child: Child, path: str, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                child.check()
                try:
                    if (await clients.next().get(path, timeout=5)).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(_POLL_S / 5)
    except TimeoutError:
        raise ChildError(f"no {path} from the router within {timeout_s:.0f} s:\n{child.tail()}") from None


async def warming(console: Console, clients: Clients, jobs: list[DocumentJob]) -> list[DocumentResult]:
    """Send documents before the engine is ready."""
    with show.sending(console, "engine still warming up", len(jobs)) as watch:
        return await run_closed(clients, jobs, len(jobs), watch)


async def engine_up(console: Console, clients: Clients, child: Child, probe: DocumentJob) -> None:
    """Wait until the local engine answers a document of its own.

    Raises:
        ChildError: it takes too long.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + ENGINE_TIMEOUT_S
    with show.waiting(console, "vLLM starts on this machine"):
        while not (result := await send(clients.next(), probe, clock())).answered:
            child.check()
            if clock() > deadline:
                raise ChildError(
                    f"the engine gave no answer within {ENGINE_TIMEOUT_S:.0f} s ({result.fault}):\n{child.tail()}"
                )
            await asyncio.sleep(_POLL_S)


async def capacity(console: Console, clients: Clients, jobs: list[DocumentJob]) -> tuple[list[DocumentResult], Pace]:
    """Measure what the engine holds, with all documents pinned to it; the later rates follow from that."""
    clock = asyncio.get_running_loop().time
    with show.sending(console, f"engine alone, {AT_ONCE} at a time", len(jobs)) as watch:
        start = clock()
        results = await run_closed(clients, jobs, AT_ONCE, watch)
        rate = sum(result.answered for result in results) / (clock() - start)
    rates = pace(rate)
    console.print(
        f"  the engine answers {rate:.0f} documents/s here; calm will bring {rates.calm:.0f}/s, "
        f"the burst {rates.burst:.0f}/s"
    )
    return results, rates


async def timed(
    console: Console, clients: Clients, title: str, jobs: list[DocumentJob], per_s: float
) -> list[DocumentResult]:
    """Send documents as they arrive, `per_s` per second on average."""
    with show.sending(console, title, len(jobs)) as watch:
        return await run_open(clients, arrive(jobs, per_s, seed=len(jobs)), watch)


async def second_look(
    console: Console, clients: Clients, results: list[DocumentResult], most: int
) -> list[DocumentResult]:
    """Send escalated documents to the local model alone, to see whether it was right to escalate them."""
    escalated = [result.job for result in results if result.decision == "escalated" and result.answered][:most]
    if not escalated:
        return []
    with show.sending(console, "escalated ones again, local only", len(escalated)) as watch:
        return await run_closed(clients, pinned(escalated, "check", f"local/{LOCAL_MODEL}"), AT_ONCE, watch)
