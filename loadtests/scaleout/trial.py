"""One trial of scaling out.

1. Two engines start; two routers share a ledger in PostgreSQL. 2. Conversations are held: with `x-session-id`, without
it, and with it through the routers in turns. Recorded are each plan's turns by engine, and what the engines' prefix
caches counted meanwhile. 3. Clients keep both routers busy. After a third of the requests one engine is ended under the
load; the load continues until it is gone and the other serves the rest. Conversations run beside it: before, during and
after. 4. Any router can look up any request, and a cap on the cloud holds for both together, to the nano-dollar.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal

import httpx
from demo.processes import ChildError
from demo.product import cloud
from demo.workload import DocumentJob

from loadtests.scaleout import affinity, sites
from loadtests.scaleout.affinity import AffinityShare, Moved, Turn
from loadtests.scaleout.flow import Fate, document, flow
from loadtests.scaleout.sessions import SessionPlan, counted, hold
from loadtests.scaleout.sites import EngineSite, RouterSite, Starter
from spillway_router.core.money.budget import period_start
from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.store.open import open_ledger

READY_S = 60.0
GONE_S = 90.0
CAP_USD = "0.0003"
"""Enough for a few paid documents; each router alone would spend it."""
PAID = 60
LOOKED_UP = 20
PLANS = {
    "with_session_id": SessionPlan(0, 0),
    "without_session_id": SessionPlan(0, 0, first=100_000, with_id=False),
    "through_both_routers_in_turns": SessionPlan(0, 0, first=200_000, alternate=True),
}
TURNS_OF = {"before": 3, "during": 2, "after": 2}
"""Turns of a conversation in each phase while an engine ends."""


@dataclass(frozen=True, slots=True)
class TrialShape:
    """The size of a trial, and how one engine ends: in order, or killed (a seeded fault: its streams break off).

    `sessions` conversations of `turns` turns are held per plan; half as many, but at least ten, run while the engine
    ends. `prefix_cache`: the engines have one and count its hits (the fake engine doesn't). `session_ids` False leaves
    out `x-session-id` where it should be sent (a seeded fault).
    """

    requests: int = 500
    at_once: int = 12
    end: Literal["drain", "kill"] = "drain"
    sessions: int = 24
    turns: int = 5
    prefix_cache: bool = True
    session_ids: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """The results of a trial.

    `served` counts answers by engine before and after the end of the first engine; `requests` and `lost` include the
    conversations' turns; `held` has a row per plan of PLANS.
    """

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
    held: dict[str, AffinityShare]
    moved: Moved
    prefix_cache: bool

    @property
    def affinity_faults(self) -> list[str]:
        """Return why prefix affinity is not shown; empty when it is."""
        kept, without = self.held["with_session_id"], self.held["without_session_id"]
        return affinity.faults(kept, without, prefix_cache=self.prefix_cache) + affinity.drain_faults(self.moved)

    @property
    def budget_held(self) -> bool:
        """Return whether both routers together stayed under the cap, spent some of it, and each refused something."""
        refused_by_both = all(self.paid_refused.get(name, 0) for name in self.by_router)
        return 0 < Decimal(self.paid_usd) <= Decimal(self.cap_usd) and refused_by_both


def run(starter: Starter, ledger_url: str, folder: Path, shape: TrialShape, say: Callable[[str], None]) -> Trial:
    """Run one trial from nothing.

    Raises:
        ChildError: a process does not start.
    """
    jobs = [_job(number) for number in range(PAID)]
    with cloud(folder, jobs) as paid, sites.engines(starter, folder) as engines:
        say(f"  engines: {', '.join(engine.base_url for engine in engines)}")
        settings = sites.settings(engines, paid, ledger_url, CAP_USD)
        with sites.routers(settings, paid, folder) as routers:
            return asyncio.run(_trial(engines, routers, ledger_url, shape, say))


def _job(number: int) -> DocumentJob:
    """Return what the fake cloud must know to answer a paid document."""
    messages, truth = document(number)
    text = messages[0]["content"]
    return DocumentJob(
        number=number, phase="burst", at_s=0.0, text=text, truth=truth, noise="clean", private=False, stream=False
    )


async def _trial(
    engines: list[EngineSite], routers: list[RouterSite], ledger_url: str, shape: TrialShape, say: Callable[[str], None]
) -> Trial:
    urls = [router.url for router in routers]
    for url in urls:
        await _until_up(url, [engine.name for engine in engines])
    held = {name: await _held(engines, urls, plan, shape, say, name) for name, plan in PLANS.items()}
    fates, turns, end_at = await _under_load(engines[0], urls, shape)
    lost = [fate.fault for fate in fates if fate.fault] + [turn.fault for turn in turns if turn.fault]
    requests = len(fates) + len(turns) + sum(one.turns for one in held.values())
    gone = affinity.moved(turns, engines[0].name)
    say(f"  {len(fates) + len(turns)} requests while {engines[0].name} ended, {len(lost)} lost; {gone}")
    found_records = await _look_up(urls, [fate for fate in fates if not fate.fault][-LOOKED_UP:])
    paid = await flow(urls, shape.at_once, "paid", lambda done: len(done) >= PAID - shape.at_once)
    say(f"  paid: {sum(not fate.fault for fate in paid)} answered, {sum(fate.status == 402 for fate in paid)} refused")
    stray = [fate.fault for fate in paid if fate.fault and fate.status != 402]
    return Trial(
        requests=requests,
        lost=len(lost) + sum(one.lost for one in held.values()),
        faults=tuple(lost + stray)[:10],
        right=sum(fate.right for fate in fates),
        served=_served(fates, end_at),
        by_router=dict(Counter(str(fate.router) for fate in fates)),
        after_the_end=sum(fate.moment > end_at for fate in fates),
        looked_up=min(LOOKED_UP, sum(not fate.fault for fate in fates)),
        found=found_records,
        paid_answers=sum(not fate.fault for fate in paid),
        paid_refused=dict(Counter(str(fate.router) for fate in paid if fate.status == 402)),
        paid_usd=str(await asyncio.to_thread(_spent_usd, ledger_url)),
        cap_usd=CAP_USD,
        held=held,
        moved=gone,
        prefix_cache=shape.prefix_cache,
    )


async def _held(
    engines: Sequence[EngineSite],
    urls: Sequence[str],
    plan: SessionPlan,
    shape: TrialShape,
    say: Callable[[str], None],
    name: str,
) -> AffinityShare:
    """Hold the conversations of one plan; return them with what the prefix caches counted meanwhile."""
    bases = [engine.base_url for engine in engines]
    held_plan = replace(plan, sessions=shape.sessions, turns=shape.turns, with_id=plan.with_id and shape.session_ids)
    before = await counted(bases)
    turns = await hold(urls, "auto", held_plan, shape.at_once)
    share = affinity.held(turns, (await counted(bases)).since(before).share)
    say(f"  conversations {name}: {share.kept} of {share.followed} turns stayed, {share.cached_share:.1%} cached")
    return share


async def _under_load(
    first: EngineSite, urls: Sequence[str], shape: TrialShape
) -> tuple[list[Fate], list[Turn], float]:
    """Return the requests, the conversations' turns, and the moment (of the loop's clock) at which the first engine was
    gone.
    """
    clock = asyncio.get_running_loop().time
    phases = {name: asyncio.Event() for name in TURNS_OF}
    phases["before"].set()
    phase_of = [name for name, count in TURNS_OF.items() for _ in range(count)]
    # A session's engine is drawn: of ten sessions some are on the engine that ends, except in one of a thousand trials.
    sessions = max(10, shape.sessions // 2)
    plan = SessionPlan(sessions, len(phase_of), first=300_000, with_id=shape.session_ids)
    begun = 0

    async def reached(turn: int) -> str:
        nonlocal begun
        begun += phase_of[turn] == "before"
        await phases[phase_of[turn]].wait()
        return phase_of[turn]

    asked_at = gone_at = 0.0
    after = 0

    def enough(done: Sequence[Fate]) -> bool:
        nonlocal asked_at, gone_at, after
        if not asked_at:
            # By then every conversation has had its first turns.
            if len(done) >= shape.requests // 3 and begun >= sessions * TURNS_OF["before"]:
                asked_at = clock()
                first.drain() if shape.end == "drain" else first.kill()
                phases["during"].set()
            return False
        if not gone_at:
            if first.ended:
                gone_at, after = clock(), len(done)
                phases["after"].set()
            elif clock() - asked_at > GONE_S:
                raise ChildError(f"{first.name} did not end within {GONE_S:.0f} s:\n{first.child.tail()}")
            return False
        # A third of the requests must come after the end, so that the other engine alone serves them.
        return len(done) >= max(shape.requests, after + shape.requests // 3)

    async with asyncio.TaskGroup() as group:
        talk = group.create_task(hold(urls, "auto", plan, sessions, reached))
        fates = await flow(urls, shape.at_once, "auto", enough)
    return fates, talk.result(), gone_at


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
    """Return how many of these requests the router that did not serve them can look up."""
    known_requests = 0
    for fate in fates:
        other = urls[(fate.router + 1) % len(urls)]
        async with httpx.AsyncClient(base_url=other, timeout=10, trust_env=False) as client:
            answer = await client.get(f"/v1/requests/{fate.request_id}")
        known_requests += answer.status_code == 200 and fate.request_id in answer.text
    return known_requests


def _spent_usd(ledger_url: str) -> Decimal:
    """Return what the ledger has for the capped backend: charged and held, exactly."""
    ledger = open_ledger(ledger_url)
    try:
        start_ms = 1000 * period_start("month", time.time())
        balance = ledger.balance("backend:cloud", "month", start_ms)
    finally:
        ledger.close()
    return Decimal(balance.spent_nano + balance.reserved_nano) / NANO
