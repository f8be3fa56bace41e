"""Watches local engines and GPUs, and reports what it sees to the board: one scraper, one prober and one reader of
abilities per engine, and one NVML sampler.

Each of them is a task of its own that begins again when it fails: nobody would notice an engine that died unwatched.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

from spillway_router.aio.enduring import Enduring
from spillway_router.config.assemble import BackendTarget
from spillway_router.providers.catalogue import provider_for
from spillway_router.signals.abilities import AbilityReader, AskedEngine
from spillway_router.signals.board import Board
from spillway_router.signals.doubt import EngineProof, proof_of
from spillway_router.signals.engine_client import EngineClient
from spillway_router.signals.engines import engine_metrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.gpu import GpuTelemetry, gpu_verdict
from spillway_router.signals.liveness import LivenessVerdict
from spillway_router.signals.nvml import GpuSampler, load_nvml
from spillway_router.signals.outages import EngineOutage, EngineOutages
from spillway_router.signals.own_pages import EngineAbilities
from spillway_router.signals.prober import ProbedEngine, Prober
from spillway_router.signals.scraper import Scraper
from spillway_router.signals.utilisation import UtilisationHistory

log = logging.getLogger("spillway.signals")

GPU_MEMORY_S = 300.0
"""How long the last verdict on the GPUs stands when NVML says nothing any more; after that only the engine's own health
decides."""


class EngineWatch:
    """Starts, replaces and stops the tasks that watch. `clock` is monotonic seconds.

    `metrics_complete` says of each scraped engine whether its metrics page had every series; `gpus` is the last reading
    of the GPUs; `outages` has the times in which engines got no requests, each of which is also passed to `on_outage`
    when it begins and when it ends.
    """

    def __init__(
        self, board: Board, clock: Callable[[], float], on_outage: Callable[[EngineOutage], None] = lambda _: None
    ) -> None:
        self._board = board
        self._clock = clock
        self._engines: dict[str, tuple[BackendTarget, Enduring]] = {}
        self._replaced: set[asyncio.Task[None]] = set()
        self._gpu_task: Enduring | None = None
        self._gpus_judged_at = -math.inf
        self._utilisation = UtilisationHistory()
        self._busy_for_s = 0.0
        self.outages = EngineOutages(on_outage)
        self.proofs: dict[str, EngineProof] = {}
        """What finds out whether an engine fails for everybody."""
        board.on_doubt = self._on_doubt
        self.metrics_complete: dict[str, bool] = {}
        self.gpus = GpuTelemetry(up=False)

    def watch(self, targets: Mapping[str, BackendTarget], busy_for_s: float) -> None:
        """Watch the local engines among these targets and no others; the watch of an unchanged engine continues.

        `busy_for_s` is for how long a GPU must be busy to count as busy.
        """
        self._busy_for_s = busy_for_s
        loop = asyncio.get_running_loop()
        for name, (target, task) in tuple(self._engines.items()):
            if targets.get(name) != target:
                del self._engines[name]
                self.outages.forget(name)
                stopping = loop.create_task(task.stop(), name=f"end {task.name}")
                self._replaced.add(stopping)
                stopping.add_done_callback(self._replaced.discard)
        for name, target in targets.items():
            if target.backend.local and name not in self._engines:
                task = Enduring(f"watch {name}", partial(self._watch_engine, target))
                self._engines[name] = (target, task)
                task.start()
        if self._gpu_task is None:
            sampler = GpuSampler(load_nvml, self._on_gpus)
            self._gpu_task = Enduring("watch GPUs", sampler.run)
            self._gpu_task.start()

    async def stop(self) -> None:
        """Cancel all tasks and wait for them; harmless when repeated."""
        tasks = [task for _, task in self._engines.values()]
        if self._gpu_task is not None:
            tasks.append(self._gpu_task)
        self._engines, self._gpu_task = {}, None
        await asyncio.gather(*(task.stop() for task in tasks), *self._replaced)

    async def _watch_engine(self, target: BackendTarget) -> None:
        """Scrape and probe one engine until cancelled."""
        name = target.backend.name
        metrics = engine_metrics(target.backend.provider)
        with closing(_client(target)) as client:
            provider = provider_for(target.entry)
            abilities = AbilityReader(
                client,
                AskedEngine(metrics, target.backend.model, lambda reply: provider.outcome(reply, 0.0)),
                lambda abilities: self._on_abilities(name, abilities),
            )

            def on_verdict(verdict: LivenessVerdict, _: float) -> None:
                self._on_verdict(name, verdict)
                abilities.on_condition(verdict.condition)

            prober = Prober(
                client,
                ProbedEngine(metrics, target.backend.model, lambda: self._awaiting(name)),
                on_verdict,
                clock=self._clock,
            )

            def on_sample(sample: EngineSample | None, reason: str, monotonic_s: float) -> None:
                prober.on_sample(sample, reason, monotonic_s)
                if metrics.metrics_path:  # an engine without metrics lacks none
                    self._on_sample(name, sample, monotonic_s, metrics.metrics_hint)

            scraper = Scraper(client, metrics, on_sample, clock=self._clock)
            parts = {"scrape": scraper.run, "probe": prober.run, "abilities of": abilities.run}
            asked = proof_of(target.backend.model, target.backend.endpoints) if metrics.probe else None
            proof: EngineProof | None = None
            if asked is not None:
                path, body = asked
                proof = self.proofs[name] = EngineProof(
                    client,
                    path=path,
                    body=body,
                    outcome=lambda reply: provider.outcome(reply, 0.0),
                    on_answer=lambda sound: self._board.proven(name, sound, self._clock()),
                )
            try:
                await _until_cancelled([Enduring(f"{work} {name}", run) for work, run in parts.items()])
            finally:
                if proof is not None:
                    if self.proofs.get(name) is proof:
                        del self.proofs[name]
                    await proof.stop()

    def _on_doubt(self, name: str) -> None:
        proof = self.proofs.get(name)
        if proof is not None:
            proof.ask()

    def _awaiting(self, name: str) -> int:
        """Return how many requests the router has at the engine without a first token."""
        signals = self._board.view(name, self._clock())
        return 0 if signals is None or signals.backlog is None else signals.backlog.waiting_first_token

    def _on_verdict(self, name: str, verdict: LivenessVerdict) -> None:
        condition = verdict.condition
        health = condition if condition in ("up", "starting") else "down"
        reason = "" if condition == "up" else ", ".join((condition, *verdict.reasons))
        self._board.health(name, health, reason)
        self._see(name)

    def _see(self, name: str) -> None:
        """Note whether an engine gets requests now, by its own health and by that of the GPUs."""
        monotonic_s = self._clock()
        signals = self._board.view(name, monotonic_s)
        if signals is not None and name in self._engines:
            self.outages.see(name, signals.health, signals.health_reason, monotonic_s)

    def _on_abilities(self, name: str, abilities: EngineAbilities) -> None:
        if abilities != EngineAbilities():
            lacking = ", ".join(sorted(abilities.lacks)) or "nothing"
            length, at_once = abilities.context_tokens or "unknown", abilities.sequences or "unknown"
            log.info("backend %s: context of %s tokens, %s requests at once, lacks %s", name, length, at_once, lacking)
        self._board.engine_abilities(name, abilities.context_tokens, abilities.lacks)
        self._board.engine_sequences(name, abilities.sequences)

    def _on_sample(self, name: str, sample: EngineSample | None, monotonic_s: float, hint: str) -> None:
        complete = sample is not None and not sample.missing
        if self.metrics_complete.get(name, True) and not complete and sample is not None:
            advice = f" ({hint})" if hint else ""
            log.warning("backend %s: metrics are missing %s%s; the backlog alone decides", name, sample.missing, advice)
        self.metrics_complete[name] = complete
        self._board.engine_load(name, None if sample is None else sample.load, monotonic_s)
        if sample is not None and sample.kv_capacity_tokens:
            self._board.engine_capacity(name, sample.kv_capacity_tokens)

    def _on_gpus(self, gpus: GpuTelemetry, monotonic_s: float) -> None:
        self.gpus = gpus
        if gpus.readings:
            self._gpus_judged_at = monotonic_s
            verdicts = [gpu_verdict(reading) for reading in gpus.readings]
            reasons = tuple(dict.fromkeys(reason for verdict in verdicts for reason in verdict.reasons))
            rate = min((verdict.rate_factor for verdict in verdicts), default=1.0)
            self._board.gpu(rate, reasons, healthy=all(verdict.healthy for verdict in verdicts))
        elif monotonic_s - self._gpus_judged_at > GPU_MEMORY_S:
            self._board.gpu(1.0, (), healthy=True)
        self._utilisation.add(gpus, monotonic_s)
        share = self._utilisation.lowest(self._busy_for_s)
        for name, (target, _) in self._engines.items():
            if target.is_on_this_machine:
                self._board.gpu_utilisation(name, share, monotonic_s)
            self._see(name)


async def _until_cancelled(parts: Sequence[Enduring]) -> None:
    """Run the parts until cancelled, and wait for their ends."""
    for part in parts:
        part.start()
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.gather(*(part.stop() for part in parts))


def _client(target: BackendTarget) -> EngineClient:
    """Return a client for an engine, with the credentials of its target."""
    # Reading all certificates takes 20 ms and 0.8 MB, which plain HTTP needs not.
    tls = ssl.create_default_context() if target.target.scheme == "https" else None
    return EngineClient(target.target, tls, target.may_dial)
