"""Probes the health of one local engine: requests its health path, watches its progress, and in doubt requests a token.

The prober only collects observations; `liveness.observe` judges them. The scraper's samples arrive through `on_sample`,
so that one poll of the metrics page serves both uses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from spillway_router.aio.periodic import Periodic, Rhythm, TimeSource
from spillway_router.aio.tasks import end
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.http_client.connection import ConnectError, TransportError
from spillway_router.http_client.own_limits import is_own
from spillway_router.signals.engine_client import EngineClient, is_error_of_server
from spillway_router.signals.engines import EngineMetrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.liveness import Answer, LivenessRules, LivenessState, LivenessVerdict, Observation, observe
from spillway_router.signals.proof import generates
from spillway_router.signals.scraper import Clock

OnVerdict = Callable[[LivenessVerdict, float], None]
"""Receives the verdict and its time in monotonic seconds, after every probe. It must not raise."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Times in seconds."""

    interval_s: float = 0.8
    timeout_s: float = 1.0
    """For an answer of the health path. A dead engine must be noticed within 2 s, so interval + timeout stay below."""
    proof_timeout_s: float = 5.0
    """For the one token that distinguishes a slow engine from a hung one."""
    proof_interval_s: float = 5.0
    recovery_timeout_s: float = 30.0
    """For the one token that brings an engine back: the first one after a start waits for kernels to be compiled."""
    recovery_interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class ProbedEngine:
    """An engine to probe.

    `awaiting` returns how many requests the router has at the engine without a first token. `model` is the model that
    is asked for a token as proof of life; if it is empty, the health path brings an engine back, and a hung one a step
    or a restart.
    """

    metrics: EngineMetrics
    model: str = ""
    awaiting: Callable[[], int] = lambda: 0


class Prober:
    """Probes one engine. `client` belongs to the caller and is not closed here; `clock` is monotonic seconds."""

    __slots__ = (
        "_awaiting", "_client", "_clock", "_health_path", "_model", "_name", "_on_verdict", "_proof", "_proof_at",
        "_rules", "_sample", "_sampled_at", "_settings", "_state", "_token_at",
    )  # fmt: skip

    def __init__(
        self,
        client: EngineClient,
        engine: ProbedEngine,
        on_verdict: OnVerdict,
        *,
        rules: LivenessRules | None = None,
        settings: ProbeSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._health_path = engine.metrics.health_path
        self._on_verdict = on_verdict
        self._awaiting = engine.awaiting
        self._model = engine.model if engine.metrics.probe else ""
        self._name = f"probe of {client.place}"
        self._rules = rules or LivenessRules()
        self._settings = settings or ProbeSettings()
        self._clock = clock
        self._state = LivenessState(since=clock())
        self._sample: EngineSample | None = None
        self._sampled_at = 0.0
        self._proof: asyncio.Task[None] | None = None
        self._proof_at = float("-inf")
        self._token_at = float("-inf")

    def on_sample(self, sample: EngineSample | None, _reason: str, monotonic_s: float) -> None:
        """Take the result of a scrape. A failed scrape leaves the last sample to grow old."""
        if sample is not None:
            self._sample, self._sampled_at = sample, monotonic_s

    async def run(self) -> None:
        """Probe until cancelled; a request for a token in progress is cancelled too."""
        try:
            rhythm = Rhythm(self._settings.interval_s, from_start=True, longest_run_s=30.0)
            time_source = TimeSource(self._clock)
            await Periodic(self._name, rhythm, self.probe, on_error=self._on_error, time_source=time_source).run()
        finally:
            await self._stop_proof()

    async def probe(self) -> LivenessVerdict:
        """Probe once: request the health path, judge, report the verdict, and perhaps request a token."""
        answer, detail = await self._request_health()
        monotonic_s = self._clock()
        if answer is None:  # nothing was learned
            return LivenessVerdict(self._state.condition, self._state.reasons, self._state.since)
        observation = Observation(
            monotonic_s=monotonic_s,
            answer=answer,
            detail=detail,
            sample=self._sample,
            sampled_at=self._sampled_at,
            awaiting=self._awaiting(),
            askable=bool(self._model),
            token_at=self._token_at,
        )
        self._state, verdict = observe(self._state, observation, self._rules)
        self._on_verdict(verdict, monotonic_s)
        if verdict.wants_proof and self._model:
            self._start_proof(monotonic_s, recovering=verdict.condition != "up")
        return verdict

    def _on_error(self, error: Exception) -> None:
        """Judge from the health path alone after a probe that failed: what it remembered may be why."""
        UNEXPECTED.note("background", error, "%s failed; it forgets the engine's metrics and goes on", self._name)
        self._sample = None
        state = self._state
        self._state = LivenessState(
            since=state.since,
            condition=state.condition,
            reasons=state.reasons,
            seen_absent=state.seen_absent,
            doubted_at=state.doubted_at,
        )

    async def _request_health(self) -> tuple[Answer | None, str]:
        """Return the answer of the health path, and details for people; None if this machine could not ask."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status = await self._client.status(self._health_path)
        except TimeoutError:
            return "silent", f"no answer within {self._settings.timeout_s:g} s"
        except TransportError as error:
            if is_own(error):
                return None, str(error)
            return ("refused" if isinstance(error, ConnectError) else "silent"), str(error) or type(error).__name__
        except Exception as error:  # a reply that breaks the client says no more of the engine than none
            UNEXPECTED.note("background", error, "%s could not read the health page", self._name)
            return "silent", type(error).__name__
        detail = f"HTTP {status}"
        # 401 or 404 is an answer too: the server is alive, it only has no such path for us.
        return ("not_ready" if is_error_of_server(status) else "ok"), detail

    def _start_proof(self, monotonic_s: float, *, recovering: bool) -> None:
        """Request a token, unless one is being requested or was a moment ago."""
        in_progress = self._proof is not None and not self._proof.done()
        settings = self._settings
        interval_s = settings.recovery_interval_s if recovering else settings.proof_interval_s
        if in_progress or monotonic_s - self._proof_at < interval_s:
            return
        self._proof_at = monotonic_s
        timeout_s = settings.recovery_timeout_s if recovering else settings.proof_timeout_s
        self._proof = asyncio.create_task(self._prove(timeout_s), name=f"{self._name}, token")

    async def _prove(self, timeout_s: float) -> None:
        """Request one token and note when it came. Never raises."""
        try:
            async with asyncio.timeout(timeout_s):
                if await generates(self._client, self._model):
                    self._token_at = self._clock()
        except (TimeoutError, TransportError):
            return
        except Exception as error:
            UNEXPECTED.note("background", error, "%s could not request a token", self._name)

    async def _stop_proof(self) -> None:
        task, self._proof = self._proof, None
        await end(task)
