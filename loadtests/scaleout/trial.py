"""One trial of scaling out.

1. Two engines come up, two routers share a ledger in PostgreSQL, clients keep both routers busy.
2. After a third of the requests one engine is ended under the load; the load goes on until it is gone and the rest is
   served by the other.
3. Any router can tell of any request, and a cap on the cloud holds for both together, to the nano-dollar.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Literal

import httpx

from loadtests.demo.processes import ChildError
from loadtests.demo.product import cloud
from loadtests.demo.workload import Job
from loadtests.scaleout import sites
from loadtests.scaleout.flow import Fate, document, flow
from loadtests.scaleout.sites import Engine, Router, Starter
from spillway_router.core.budget import period_start
from spillway_router.core.tariff import NANO
from spillway_router.ledger.url import open_ledger

READY_S = 60.0
GONE_S = 90.0
CAP_USD = "0.0003"
"""A few paid documents; each router alone would spend it."""
PAID = 60
LOOKED_UP = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """How much is asked, and how one engine ends: in order, or killed (a seeded fault: its streams break off)."""

    requests: int = 500
    at_once: int = 12
    end: Literal["drain", "kill"] = "drain"


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found. `served` counts answers by engine before and after the end of the first engine."""

    requests: int
    lost: int
    faults: tuple[str, ...]
    right: int
    served: dict[str, dict[str, int]]
    by_router: dict[str, int]
    after_the_end: int
    looked_up: int
    found: int
    paid_answers: int
    paid_refused: dict[str, int]
    paid_usd: str
    cap_usd: str

    @property
    def budget_held(self) -> bool:
        """Whether both routers together stayed under the cap, spent of it, and each refused something."""
        refused_by_both = all(self.paid_refused.get(name, 0) for name in self.by_router)
        return 0 < Decimal(self.paid_usd) <= Decimal(self.cap_usd) and refused_by_both


def run(starter: Starter, ledger_url: str, folder: Path, shape: Shape, say: Callable[[str], None]) -> Trial:
    """One trial from nothing. Raises ChildError when something doesn't come up."""
    jobs = [_job(number) for number in range(PAID)]
    with cloud(folder, jobs) as paid, sites.engines(starter, folder) as engines:
        say(f"  engines: {', '.join(engine.base_url for engine in engines)}")
        told = sites.settings(engines, paid, ledger_url, CAP_USD)
        with sites.routers(told, paid, folder) as routers:
            return asyncio.run(_trial(engines, routers, ledger_url, shape, say))


def _job(number: int) -> Job:
    """What the stand-in cloud must know to answer a paid document."""
    messages, truth = document(number)
    text = messages[0]["content"]
    return Job(number, "burst", 0.0, text, truth, "clean", private=False, stream=False)


async def _trial(
    engines: list[Engine], routers: list[Router], ledger_url: str, shape: Shape, say: Callable[[str], None]
) -> Trial:
    urls = [router.url for router in routers]
    for url in urls:
        await _until_up(url, [engine.name for engine in engines])
    fates, end_at = await _under_load(engines[0], urls, shape)
    lost = [fate for fate in fates if fate.fault]
    say(f"  {len(fates)} requests, {len(lost)} lost; {engines[0].name} ended under load")
    found = await _look_up(urls, [fate for fate in fates if not fate.fault][-LOOKED_UP:])
    paid = await flow(urls, shape.at_once, "paid", lambda done: len(done) >= PAID - shape.at_once)
    say(f"  paid: {sum(not fate.fault for fate in paid)} answered, {sum(fate.status == 402 for fate in paid)} refused")
    stray = [fate.fault for fate in paid if fate.fault and fate.status != 402]
    return Trial(
        requests=len(fates),
        lost=len(lost),
        faults=tuple([fate.fault for fate in lost] + stray)[:10],
        right=sum(fate.right for fate in fates),
        served=_served(fates, end_at),
        by_router=dict(Counter(str(fate.router) for fate in fates)),
        after_the_end=sum(fate.moment > end_at for fate in fates),
        looked_up=min(LOOKED_UP, len(fates) - len(lost)),
        found=found,
        paid_answers=sum(not fate.fault for fate in paid),
        paid_refused=dict(Counter(str(fate.router) for fate in paid if fate.status == 402)),
        paid_usd=str(await asyncio.to_thread(_spent_usd, ledger_url)),
        cap_usd=CAP_USD,
    )


async def _under_load(first: Engine, urls: Sequence[str], shape: Shape) -> tuple[list[Fate], float]:
    """The requests, and the moment (of the loop's clock) when the first engine was gone."""
    clock = asyncio.get_running_loop().time
    asked_at = gone_at = 0.0
    after = 0

    def enough(done: Sequence[Fate]) -> bool:
        nonlocal asked_at, gone_at, after
        if not asked_at:
            if len(done) >= shape.requests // 3:
                asked_at = clock()
                first.drain() if shape.end == "drain" else first.kill()
            return False
        if not gone_at:
            if first.ended:
                gone_at, after = clock(), len(done)
            elif clock() - asked_at > GONE_S:
                raise ChildError(f"{first.name} did not end within {GONE_S:.0f} s:\n{first.child.tail()}")
            return False
        # A third of the requests must come after it: the other engine alone serves them.
        return len(done) >= max(shape.requests, after + shape.requests // 3)

    return await flow(urls, shape.at_once, "auto", enough), gone_at


def _served(fates: Sequence[Fate], end_at: float) -> dict[str, dict[str, int]]:
    before = Counter(fate.backend for fate in fates if fate.moment <= end_at and not fate.fault)
    after = Counter(fate.backend for fate in fates if fate.moment > end_at and not fate.fault)
    return {"before": dict(before), "after": dict(after)}


async def _until_up(url: str, backends: Sequence[str]) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        while True:
            state = (await client.get("/ready")).json()
            if all(state["backends"][name]["health"] == "up" for name in backends):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise ChildError(f"not ready within {READY_S:.0f} s: {json.dumps(state)}")
            await asyncio.sleep(0.1)


async def _look_up(urls: Sequence[str], fates: Sequence[Fate]) -> int:
    """How many of these requests the router that did not serve them can tell of."""
    found = 0
    for fate in fates:
        other = urls[(fate.router + 1) % len(urls)]
        async with httpx.AsyncClient(base_url=other, timeout=10, trust_env=False) as client:
            told = await client.get(f"/v1/requests/{fate.request_id}")
        found += told.status_code == 200 and fate.request_id in told.text
    return found


def _spent_usd(ledger_url: str) -> Decimal:
    """What the ledger has for the capped backend: charged and held, exactly."""
    ledger = open_ledger(ledger_url)
    try:
        start_ms = 1000 * period_start("month", time.time())
        balance = ledger.balance("backend:cloud", "month", start_ms)
    finally:
        ledger.close()
    return Decimal(balance.spent_nano + balance.reserved_nano) / NANO
