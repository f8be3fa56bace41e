"""The background tasks that keep the board true: one scraper and one prober per local engine, one NVML sampler."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from spillway_router.config.assemble import BackendTarget
from spillway_router.metrics.registry import Metrics
from spillway_router.signals.board import Board
from spillway_router.signals.engines import engine_metrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.gpu import GpuTelemetry, gpu_verdict
from spillway_router.signals.liveness import LivenessVerdict
from spillway_router.signals.nvml import GpuSampler, load_nvml
from spillway_router.signals.prober import Probed, Prober
from spillway_router.signals.scraper import Scraper, server_root

log = logging.getLogger("spillway.signals")


@dataclass(frozen=True, slots=True)
class EngineObservers:
    """What the watchers report to."""

    board: Board
    metrics: Metrics
    clock: Callable[[], float]


class EngineWatch:
    """Starts, replaces and stops the tasks."""

    def __init__(self, watch: EngineObservers) -> None:
        self._watch = watch
        self._engines: dict[str, tuple[BackendTarget, asyncio.Task[None]]] = {}
        self._gpu: asyncio.Task[None] | None = None

    def start(self, places: Mapping[str, BackendTarget]) -> None:
        """Watch these engines and no others; those that did not change go on."""
        for name, (place, task) in tuple(self._engines.items()):
            if places.get(name) != place:
                task.cancel()
                del self._engines[name]
        for name, place in places.items():
            if place.backend.local and name not in self._engines:
                task = asyncio.get_running_loop().create_task(self._engine(place), name=f"watch-{name}")
                self._engines[name] = (place, task)
        if self._gpu is None:
            sampler = GpuSampler(load_nvml(), self._on_gpus)
            self._gpu = asyncio.get_running_loop().create_task(sampler.run(), name="watch-gpu")

    async def stop(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks = [task for _, task in self._engines.values()]
        if self._gpu is not None:
            tasks.append(self._gpu)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._engines.clear()
        self._gpu = None

    async def _engine(self, place: BackendTarget) -> None:
        """Scrape and probe one engine until cancelled."""
        watch, name = self._watch, place.backend.name
        metrics = engine_metrics(place.backend.provider)
        headers = {n.decode(): v.decode() for n, v in place.target.headers}
        # Plain HTTP gets a context without certificates: reading them all takes 20 ms and 0.8 MB per engine.
        https = place.target.scheme == "https"
        tls = ssl.create_default_context() if https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.AsyncHTTPTransport(verify=tls, uds=place.target.uds or None, trust_env=False)
        root = "http://localhost" if place.target.uds else server_root(place.base_url)
        async with httpx.AsyncClient(headers=headers, transport=transport, trust_env=False) as client:
            prober = Prober(
                client,
                Probed(root, metrics, place.backend.model, lambda: self._awaiting(name)),
                lambda verdict, _: self._on_verdict(name, verdict),
                clock=watch.clock,
            )

            def on_sample(sample: EngineSample | None, reason: str, now: float) -> None:
                prober.on_sample(sample, reason, now)
                self._on_sample(name, sample, now)

            scraper = Scraper(client, root, metrics, on_sample, clock=watch.clock)
            async with asyncio.TaskGroup() as group:
                group.create_task(scraper.run())
                group.create_task(prober.run())

    def _awaiting(self, name: str) -> int:
        known = self._watch.board.current(self._watch.clock()).backends.get(name)
        return 0 if known is None or known.backlog is None else known.backlog.waiting_first_token

    def _on_verdict(self, name: str, verdict: LivenessVerdict) -> None:
        condition = verdict.condition
        health = condition if condition in ("up", "starting") else "down"
        reason = "" if condition == "up" else ", ".join((condition, *verdict.reasons))
        self._watch.board.health(name, health, reason)

    def _on_sample(self, name: str, sample: EngineSample | None, now: float) -> None:
        board, metrics = self._watch.board, self._watch.metrics
        complete = sample is not None and not sample.missing
        if metrics.scrape_up.get(name, True) and not complete and sample is not None:
            log.warning("backend %s: metrics are missing %s; the backlog alone decides", name, sample.missing)
        metrics.scrape_up[name] = complete
        board.engine_load(name, None if sample is None else sample.load, now)
        if sample is not None and sample.kv_capacity_tokens:
            board.engine_capacity(name, sample.kv_capacity_tokens)

    def _on_gpus(self, gpus: GpuTelemetry, _: float) -> None:
        self._watch.metrics.gpus = gpus
        if gpus.up:
            verdicts = [gpu_verdict(reading) for reading in gpus.readings]
            reasons = tuple(dict.fromkeys(r for v in verdicts for r in v.reasons))
            rate = min((v.rate_factor for v in verdicts), default=1.0)
            self._watch.board.gpu(rate, reasons, healthy=all(v.healthy for v in verdicts))
