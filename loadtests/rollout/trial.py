"""One trial: a fleet of two routers and two engines serves without a pause while its parts come and go.

Routers are real processes with one ledger in PostgreSQL, engines are processes of the fake engine and are found in a
file, a further one stands for a paid cloud. Clients are openai's SDK behind one address (service.py). One client in
each flow sends private content, which no cloud may have. In every phase the load goes on until what happens is over:

    spot_notice      SIGUSR1 to one router; its engine leaves the list; when both are idle the machine is gone (SIGKILL)
    upgrade_router   each router in turn: off the balancer, SIGTERM, gone; a new one starts in its place
    upgrade_engine   each engine in turn, on its own port: SIGTERM, gone, started again; the others and the cloud bridge
    engine_loss      SIGKILL of an engine with answers under way
    scale_up         a third engine appears in the list
    scale_down       it leaves the list, and ends when idle
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from demo.processes import Child, ChildError, start
from demo.product import spillway

from loadtests.bench.processes import free_port
from loadtests.rollout.clients import Fate, flow
from loadtests.rollout.service import Service
from loadtests.rollout.waiting import until
from loadtests.scaleout.sites import ROOT, listening, python, wait

START_S = 60.0
STEP_S = 300.0
STOP_S = 40.0
UNANNOUNCED = "engine_loss"
"""The one phase in which something ends that nobody was told of."""
BUSY = 3
"""So many requests run in an engine before it is killed."""
SERVED_BEFORE = 8
"""So many answers a new engine must give before its phase is over."""


@dataclass(frozen=True, slots=True)
class RolloutShape:
    """The size of a trial. `cut_off` is a seeded fault: an upgrade ends routers at once, as SIGKILL does; `blind` is
    another one: engines are killed on a scale-down instead of leaving the list first. `speed` makes the engine slower
    than an A100 by this factor, so that answers are under way for long and clients leave the processor to the rest."""

    per_phase: int = 180
    at_once: int = 12
    retries: int = 0
    speed: float = 3.0
    cut_off: bool = False
    blind: bool = False
    phases: tuple[str, ...] = (
        "spot_notice",
        "upgrade_router",
        "upgrade_engine",
        "engine_loss",
        "scale_up",
        "scale_down",
    )


@dataclass(frozen=True, slots=True)
class PhaseOutcome:
    """What became of the requests of one phase. `interrupted` are streams that ended with the promised error after the
    client had a part of the answer. They are lost unless the engine died without notice and the request, sent once
    more, got its whole answer."""

    requests: int
    lost: int
    interrupted: int
    faults: tuple[str, ...]
    by_backend: dict[str, int] = field(default_factory=dict)


class _Part:
    """A process of the fleet, and the port that it has."""

    def __init__(self, name: str, child: Child, url: str) -> None:
        self.name, self.child, self.url = name, child, url

    @property
    def address(self) -> str:
        """Host and port."""
        return self.url.removeprefix("http://").split("/")[0]

    def signal(self, number: int) -> None:
        """Send a signal to the process."""
        self.child.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with its children."""
        os.killpg(self.child.process.pid, signal.SIGKILL)

    async def gone(self) -> None:
        """Return when the process has ended."""
        await until(lambda: self.child.process.poll() is not None)


class Fleet:
    """The processes of a trial. Use it inside an ExitStack, which ends them."""

    def __init__(self, folder: Path, ledger_url: str, shape: RolloutShape, stack: ExitStack) -> None:
        self.folder, self.shape, self._stack = folder, shape, stack
        self._numbers = itertools.count(1)
        self._listed: list[_Part] = []
        self.engines: dict[str, _Part] = {}
        self.routers: dict[str, _Part] = {}
        self.cloud = self.engine("cloud", listed=False)
        self.settings = {
            "listen": "127.0.0.1:0",
            "gpu": {"price_per_hour": "1.39", "machine": "fleet"},
            "backends": [
                {
                    "name": "pool",
                    "provider": "vllm",
                    "local": True,
                    "model": "demo",
                    "discover": "file",
                    "discover_from": str(folder / "engines.txt"),
                    "discover_every_s": 0.2,
                },
                {
                    "name": "cloud",
                    "provider": "generic",
                    "base_url": f"{self.cloud.url}/v1",
                    "api_key": "none",
                    "model": "demo",
                    "price": {"input_per_million": "0.15", "output_per_million": "0.60"},
                },
            ],
            "aliases": {"auto": {"chain": ["pool", "cloud"]}},
            "budgets": [{"scope": "all", "period": "day", "limit_usd": "50"}],
            # Wide limits: this asks whether requests are lost, not how fast a busy machine answers.
            "slo": {"ttft_ms": 20_000, "tpot_ms": 10_000},
            "confidence": {"threshold": 0.0, "escalate_to": []},
            "limits": {"stop_unready_s": 1.0},
            "ledger": {"url": ledger_url},
        }

    def engine(self, name: str, port: int = 0, *, listed: bool = True) -> _Part:
        """Start an engine, and return it once it announces itself."""
        port = port or free_port()
        words = ("--port", str(port), "--scale", str(self.shape.speed))
        log = self.folder / f"{name}-{next(self._numbers)}.log"
        child = start(name, python("loadtests.fake_engine", *words), log, {}, ROOT)
        self._stack.callback(child.stop, STOP_S)
        part = _Part(name, child, f"http://127.0.0.1:{port}")
        wait(child, START_S, lambda: '"url"' in log.read_text(encoding="utf-8") or None)
        if listed:
            self.engines[name] = part
            self.list(*self.engines.values())
        return part

    def list(self, *engines: _Part) -> None:
        """Write the list of engines that routers read."""
        file, draft = self.folder / "engines.txt", self.folder / "engines.new"
        draft.write_text("".join(f"{one.address}\n" for one in engines), encoding="utf-8")
        draft.replace(file)

    def router(self, name: str) -> _Part:
        """Start a router, and return it once it listens."""
        place = self.folder / f"{name}-{next(self._numbers)}"
        place.mkdir()
        config = place / "spillway.yaml"
        config.write_text(yaml.safe_dump(self.settings, sort_keys=False), encoding="utf-8")
        child = start(name, spillway("route", "-c", str(config)), place / "log", {"PYTHONUNBUFFERED": "1"}, place)
        self._stack.callback(child.stop, STOP_S)
        self.routers[name] = _Part(name, child, listening(child))
        return self.routers[name]

    async def started(self, make: Callable[..., _Part], *words: Any) -> _Part:
        """Start a part on a thread, so that clients go on meanwhile."""
        return await asyncio.to_thread(make, *words)


async def trial(
    folder: Path, ledger_url: str, shape: RolloutShape, say: Callable[[str], None]
) -> dict[str, PhaseOutcome]:
    """Run all phases of one trial from nothing.

    Raises:
        ChildError: a process does not start, or a step takes too long.
    """
    with ExitStack() as stack:
        fleet = Fleet(folder, ledger_url, shape, stack)
        for name in ("a", "b"):
            await fleet.started(fleet.engine, name)
        for name in ("left", "right"):
            await fleet.started(fleet.router, name)
        async with Service(one.url for one in fleet.routers.values()) as service:
            run = Run(fleet, service, shape)
            await run.limited(run.settled())
            outcomes = {}
            for phase in shape.phases:
                outcomes[phase] = await run.phase(getattr(run, phase), may_interrupt=phase == UNANNOUNCED)
                say(f"  {phase}: {outcomes[phase]}")
            return outcomes


class Run:
    """The phases, each with the load beside it."""

    def __init__(self, fleet: Fleet, service: Service, shape: RolloutShape) -> None:
        self.fleet, self.service, self.shape = fleet, service, shape
        self._numbers = itertools.count()
        self._served: Counter[str] = Counter()

    async def phase(self, happen: Callable[[], Awaitable[None]], *, may_interrupt: bool) -> PhaseOutcome:
        """Let clients ask while something happens to the fleet; it begins with a third of the requests.

        `may_interrupt`: nobody could foresee it, so that streams under way may end with the promised error.
        """
        begun, over = asyncio.Event(), asyncio.Event()
        self._served.clear()

        def enough(fates: Sequence[Fate]) -> bool:
            self._served = Counter(fate.backend for fate in fates if not fate.fault)
            if len(fates) >= self.shape.per_phase // 3:
                begun.set()
            return over.is_set() and len(fates) >= self.shape.per_phase

        async def happening() -> None:
            await begun.wait()
            try:
                await self.limited(happen())
            finally:
                over.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(happening())
            asking = group.create_task(
                flow(self.service.url, self._numbers, self.shape.at_once, self.shape.retries, enough)
            )
        fates = asking.result()
        lost = [fate for fate in fates if fate.fault or (fate.interrupted and not may_interrupt)]
        return PhaseOutcome(
            requests=len(fates),
            lost=len(lost),
            interrupted=sum(bool(fate.interrupted) for fate in fates),
            faults=tuple(f"{fate.number} {fate.interrupted or fate.backend} {fate.fault}" for fate in lost[:10]),
            by_backend=dict(Counter(fate.backend for fate in fates)),
        )

    async def limited(self, work: Awaitable[None]) -> None:
        """Give a step its time. Raises ChildError when it takes longer."""
        try:
            async with asyncio.timeout(STEP_S):
                await work
        except TimeoutError as error:
            raise ChildError(f"a step took longer than {STEP_S:.0f} s: {await self._states()}") from error

    async def settled(self) -> None:
        """Return when the service has every router, and every router every engine that is listed."""
        await self.service.until(*(one.url for one in self.fleet.routers.values()))
        for router in self.fleet.routers.values():
            await self.up(router, *self.fleet.engines.values())

    async def up(self, router: _Part, *engines: _Part) -> None:
        """Return when a router has exactly these engines, all of them up."""
        wanted = {f"pool.{one.address.replace(':', '-')}" for one in engines}

        async def has_them() -> bool:
            states = await self._engines_of(router)
            return set(states) == wanted and set(states.values()) <= {"up"}

        await until(has_them)

    async def spot_notice(self) -> None:
        """The machine of the router `left` and the engine `a` is taken away after a notice, and replaced."""
        router, engine = self.fleet.routers["left"], self.fleet.engines.pop("a")
        router.signal(signal.SIGUSR1)
        await self.service.until(self.fleet.routers["right"].url)
        self.fleet.list(*self.fleet.engines.values())
        await self.up(self.fleet.routers["right"], *self.fleet.engines.values())
        router.signal(signal.SIGTERM)
        await router.gone()
        await self.idle(engine)
        engine.kill()  # the machine is gone
        self.service.routers.remove(router.url)
        await self.fleet.started(self.fleet.engine, "a")
        await self.renewed("left")

    async def upgrade_router(self) -> None:
        """Each router ends, as an orchestrator ends it, and a new one takes its place."""
        for name in ("left", "right"):
            router = self.fleet.routers[name]
            self.service.routers.remove(router.url)
            others = [one.url for one in self.fleet.routers.values() if one is not router]
            await self.service.until(*others)
            if self.shape.cut_off:
                router.kill()
            else:
                router.signal(signal.SIGTERM)
            await router.gone()
            await self.renewed(name)

    async def upgrade_engine(self) -> None:
        """Each engine ends and starts again on its port: one GPU has no room for two. It stays listed."""
        for name in ("a", "b"):
            engine = self.fleet.engines[name]
            engine.signal(signal.SIGTERM)
            await engine.gone()
            port = int(engine.address.rpartition(":")[2])
            await self.fleet.started(self.fleet.engine, name, port)
            await self.settled()

    async def engine_loss(self) -> None:
        """An engine dies with answers under way, and nobody is told."""
        engine = self.fleet.engines["a"]
        await self.busy(engine)
        engine.kill()
        await engine.gone()
        await self.fleet.started(self.fleet.engine, "a", int(engine.address.rpartition(":")[2]))
        await self.settled()

    async def scale_up(self) -> None:
        """A third engine starts, is listed, and serves."""
        engine = await self.fleet.started(self.fleet.engine, "c")
        await self.settled()
        name = f"pool.{engine.address.replace(':', '-')}"
        await until(lambda: self._served[name] >= SERVED_BEFORE)

    async def scale_down(self) -> None:
        """The third engine leaves the list, and ends when nothing runs in it."""
        engine = self.fleet.engines.pop("c", None) or self.fleet.engines.pop("b")
        if self.shape.blind:
            await self.busy(engine)
        else:
            self.fleet.list(*self.fleet.engines.values())
            for router in self.fleet.routers.values():
                await self.up(router, *self.fleet.engines.values())
            await self.idle(engine)
        engine.kill()
        await engine.gone()
        self.fleet.list(*self.fleet.engines.values())

    async def renewed(self, name: str) -> None:
        """Start a router in the place of one that is gone, and wait until it serves."""
        router = await self.fleet.started(self.fleet.router, name)
        await self.up(router, *self.fleet.engines.values())
        self.service.routers.append(router.url)
        await self.settled()

    async def running(self, engine: _Part) -> float:
        """Return how many requests run in an engine."""
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            page = (await client.get(f"{engine.url}/metrics")).text
        counted = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(counted))

    async def busy(self, engine: _Part) -> None:
        """Return when several requests run in an engine, streams and whole answers."""

        async def is_busy() -> bool:
            return await self.running(engine) >= BUSY

        await until(is_busy)

    async def idle(self, engine: _Part) -> None:
        """Return when nothing runs in an engine."""

        async def is_idle() -> bool:
            return not await self.running(engine)

        await until(is_idle)

    async def _engines_of(self, router: _Part) -> dict[str, str]:
        async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
            try:
                backends = (await client.get(f"{router.url}/ready")).json()["backends"]
            except (httpx.HTTPError, ValueError, KeyError):
                return {}
        return {name: one["health"] for name, one in backends.items() if name != "cloud"}

    async def _states(self) -> str:
        return str({one.name: await self._engines_of(one) for one in self.fleet.routers.values()})
