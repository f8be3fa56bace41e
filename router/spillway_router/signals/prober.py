"""Looks after the health of one local engine: asks its health path, watches its work, asks for a token in doubt.

The loop only gathers what was seen; what it means is `liveness.observe`. The scraper's readings come in through
`on_sample`, so that there is one poll of the metrics page for both uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import httpx

from spillway_router.aio.tasks import end
from spillway_router.core.frozen import dataclass
from spillway_router.signals.engines import EngineMetrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.liveness import Answer, LivenessRules, LivenessState, LivenessVerdict, Observation, observe
from spillway_router.signals.scraper import Clock

_SMALL_BYTES = 65_536
"""A body shorter than this is read, so that the connection can be used again; others are left and it is closed."""

OnVerdict = Callable[[LivenessVerdict, float], None]
"""Takes the verdict and the time of the look, after every look. Must not raise."""


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """Times in seconds."""

    interval_s: float = 0.8
    timeout_s: float = 1.0
    """For an answer of the health path. Interval + timeout stays under the 2 s in which a dead engine must be out."""
    proof_timeout_s: float = 5.0
    """For the one token that tells a slow engine from a hung one."""
    proof_interval_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Probed:
    """An engine to look at. `awaiting` tells how many requests the router has there without a first token. `model` is
    the name to ask the one token of; empty: no proof is asked, and only steps or a restart bring a hung engine back."""

    root_url: str
    metrics: EngineMetrics
    model: str = ""
    awaiting: Callable[[], int] = lambda: 0


class Prober:
    """Probes one engine. `run` until cancelled. `client` is the caller's and is not closed here."""

    __slots__ = (
        "_awaiting", "_client", "_clock", "_health_url", "_model", "_on_verdict", "_proof", "_proof_at",
        "_root_url", "_rules", "_sample", "_sampled_at", "_settings", "_state",
    )  # fmt: skip

    def __init__(
        self,
        client: httpx.AsyncClient,
        probed: Probed,
        on_verdict: OnVerdict,
        *,
        rules: LivenessRules | None = None,
        settings: ProbeSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._root_url = probed.root_url.rstrip("/")
        self._health_url = self._root_url + probed.metrics.health_path
        self._on_verdict = on_verdict
        self._awaiting = probed.awaiting
        self._model = probed.model
        self._rules = rules or LivenessRules()
        self._settings = settings or ProbeSettings()
        self._clock = clock
        self._state = LivenessState(since=clock())
        self._sample: EngineSample | None = None
        self._sampled_at = 0.0
        self._proof: asyncio.Task[None] | None = None
        self._proof_at = float("-inf")

    def on_sample(self, sample: EngineSample | None, _reason: str, now: float) -> None:
        """Takes a reading of the scraper. A reading without a sample leaves the last one to grow old."""
        if sample is not None:
            self._sample, self._sampled_at = sample, now

    async def run(self) -> None:
        """Looks until cancelled; a proof under way is cancelled with it."""
        try:
            while True:
                began = self._clock()
                await self.look()
                await asyncio.sleep(max(0.0, began + self._settings.interval_s - self._clock()))
        finally:
            await self._stop_proof()

    async def look(self) -> LivenessVerdict:
        """One look: asks the health path, judges, hands the verdict on and may start a proof."""
        answer, detail = await self._ask()
        now = self._clock()
        seen = Observation(now, answer, detail, self._sample, self._sampled_at, self._awaiting())
        self._state, verdict = observe(self._state, seen, self._rules)
        self._on_verdict(verdict, now)
        if verdict.wants_proof and self._model:
            self._start_proof(now)
        return verdict

    async def _ask(self) -> tuple[Answer, str]:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                # The head is enough: what the body says of models or versions is not asked here.
                async with self._client.stream("GET", self._health_url, timeout=None) as response:
                    status = response.status_code
                    if _is_small(response.headers.get("content-length", "")):
                        await response.aread()
        except TimeoutError:
            return "silent", f"no answer within {self._settings.timeout_s:g} s"
        except httpx.ConnectError as error:
            return "refused", str(error) or type(error).__name__
        except httpx.HTTPError as error:
            # A kept connection that the engine closed meanwhile fails once; a dead engine refuses the next look.
            return "silent", str(error) or type(error).__name__
        detail = f"HTTP {status}"
        # 401 or 404 is an answer too: the server lives, it only has no such path for us.
        return ("not_ready" if status >= httpx.codes.INTERNAL_SERVER_ERROR else "ok"), detail

    def _start_proof(self, now: float) -> None:
        """One at a time, and not more often than every `proof_interval_s`."""
        under_way = self._proof is not None and not self._proof.done()
        if under_way or now - self._proof_at < self._settings.proof_interval_s:
            return
        self._proof_at = now
        self._proof = asyncio.create_task(self._ask_for_a_token())

    async def _ask_for_a_token(self) -> None:
        """The answer does not matter: an engine that lives steps for it, and the next samples show that."""
        body = {"model": self._model, "prompt": "a", "max_tokens": 1, "temperature": 0}
        url = f"{self._root_url}/v1/completions"
        with contextlib.suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(self._settings.proof_timeout_s):
                await self._client.post(url, json=body, timeout=None)

    async def _stop_proof(self) -> None:
        task, self._proof = self._proof, None
        await end(task)


def _is_small(content_length: str) -> bool:
    return content_length.isdecimal() and len(content_length) < 12 and int(content_length) < _SMALL_BYTES
