"""Watches local engines and GPUs, and reports what it sees to the board: one scraper, one prober and one reader of
abilities per engine, and one NVML sampler."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping

import httpx

from spillway_router.aio.tasks import end
from spillway_router.config.assemble import BackendTarget
from spillway_router.http_client.resolving import ResolvingTransport
from spillway_router.providers.catalogue import provider_for
from spillway_router.signals.abilities import AbilityReader, AskedEngine, EngineAbilities
from spillway_router.signals.board import Board
from spillway_router.signals.engines import engine_metrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.gpu import GpuTelemetry, gpu_verdict
from spillway_router.signals.liveness import LivenessVerdict
from spillway_router.signals.nvml import GpuSampler, load_nvml
from spillway_router.signals.prober import ProbedEngine, Prober
from spillway_router.signals.scraper import Scraper, server_root

log = logging.getLogger("spillway.signals")


class EngineWatch:
    """Starts, replaces and stops the tasks that watch. `clock` is monotonic seconds.

    `metrics_complete` says of each scraped engine whether its metrics page had every series; `gpus` is the last reading
    of the GPUs.
    """

    def __init__(self, board: Board, clock: Callable[[], float]) -> None:
        self._board = board
        self._clock = clock
        self._engines: dict[str, tuple[BackendTarget, asyncio.Task[None]]] = {}
        self._gpu_task: asyncio.Task[None] | None = None
        self.metrics_complete: dict[str, bool] = {}
        self.gpus = GpuTelemetry(up=False)

    def watch(self, targets: Mapping[str, BackendTarget]) -> None:
        """Watch the local engines among these targets and no others; the watch of an unchanged engine continues."""
        for name, (target, task) in tuple(self._engines.items()):
            if targets.get(name) != target:
                task.cancel()
                del self._engines[name]
        loop = asyncio.get_running_loop()
        for name, target in targets.items():
            if target.backend.local and name not in self._engines:
                self._engines[name] = (target, loop.create_task(self._watch_engine(target), name=f"watch-{name}"))
        if self._gpu_task is None:
            sampler = GpuSampler(load_nvml, self._on_gpus)
            self._gpu_task = loop.create_task(sampler.run(), name="watch-gpu")

    async def stop(self) -> None:
        """Cancel all tasks and wait for them."""
        tasks = (self._gpu_task, *(task for _, task in self._engines.values()))
        self._engines, self._gpu_task = {}, None
        await end(*tasks)

    async def _watch_engine(self, target: BackendTarget) -> None:
        """Scrape and probe one engine until cancelled."""
        name = target.backend.name
        metrics = engine_metrics(target.backend.provider)
        root_url = "http://localhost" if target.target.uds else server_root(target.base_url)
        async with _client(target) as client:
            provider = provider_for(target.entry)
            abilities = AbilityReader(
                client,
                AskedEngine(root_url, metrics, target.backend.model, lambda reply: provider.outcome(reply, 0.0)),
                lambda abilities: self._on_abilities(name, abilities),
            )

            def on_verdict(verdict: LivenessVerdict, _: float) -> None:
                self._on_verdict(name, verdict)
                abilities.on_condition(verdict.condition)

            prober = Prober(
                client,
                ProbedEngine(root_url, metrics, target.backend.model, lambda: self._awaiting(name)),
                on_verdict,
                clock=self._clock,
            )

            def on_sample(sample: EngineSample | None, reason: str, monotonic_s: float) -> None:
                prober.on_sample(sample, reason, monotonic_s)
                self._on_sample(name, sample, monotonic_s)

            scraper = Scraper(client, root_url, metrics, on_sample, clock=self._clock)
            async with asyncio.TaskGroup() as group:
                group.create_task(scraper.run())
                group.create_task(prober.run())
                group.create_task(abilities.run())

    def _awaiting(self, name: str) -> int:
        """Return how many requests the router has at the engine without a first token."""
        signals = self._board.current(self._clock()).backends.get(name)
        return 0 if signals is None or signals.backlog is None else signals.backlog.waiting_first_token

    def _on_verdict(self, name: str, verdict: LivenessVerdict) -> None:
        condition = verdict.condition
        health = condition if condition in ("up", "starting") else "down"
        reason = "" if condition == "up" else ", ".join((condition, *verdict.reasons))
        self._board.health(name, health, reason)

    def _on_abilities(self, name: str, abilities: EngineAbilities) -> None:
        if abilities != EngineAbilities():
            lacking = ", ".join(sorted(abilities.lacks)) or "nothing"
            log.info("backend %s: context of %s tokens, lacks %s", name, abilities.context_tokens or "unknown", lacking)
        self._board.engine_abilities(name, abilities.context_tokens, abilities.lacks)

    def _on_sample(self, name: str, sample: EngineSample | None, monotonic_s: float) -> None:
        complete = sample is not None and not sample.missing
        if self.metrics_complete.get(name, True) and not complete and sample is not None:
            log.warning("backend %s: metrics are missing %s; the backlog alone decides", name, sample.missing)
        self.metrics_complete[name] = complete
        self._board.engine_load(name, None if sample is None else sample.load, monotonic_s)
        if sample is not None and sample.kv_capacity_tokens:
            self._board.engine_capacity(name, sample.kv_capacity_tokens)

    def _on_gpus(self, gpus: GpuTelemetry, _: float) -> None:
        self.gpus = gpus
        if gpus.up:
            verdicts = [gpu_verdict(reading) for reading in gpus.readings]
            reasons = tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons))
            rate = min((verdict.rate_factor for verdict in verdicts), default=1.0)
            self._board.gpu(rate, reasons, healthy=all(verdict.healthy for verdict in verdicts))


def _client(target: BackendTarget) -> httpx.AsyncClient:
    """Return a client for an engine, with the credentials of its target."""
    # Plain HTTP gets a context without certificates: reading them all takes 20 ms and 0.8 MB per engine.
    https = target.target.scheme == "https"
    tls = ssl.create_default_context() if https else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(
        verify=tls, uds=target.target.uds or None, trust_env=False
    )
    if not target.target.uds:
        transport = ResolvingTransport(transport)
    headers = {name.decode(): value.decode() for name, value in target.target.headers}
    return httpx.AsyncClient(headers=headers, transport=transport, trust_env=False)
