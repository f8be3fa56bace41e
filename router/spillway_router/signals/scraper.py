"""Reads an engine's metrics page again and again, and hands every reading on.

One loop per local backend. A reading is a sample, or None with the reason why there is none: the receiver decides what
to do without (the backlog then decides alone, and an alarm goes up). Readings never overlap: the next begins after the
one before has ended, at the latest after its timeout. After a failure the pauses double up to `max_backoff_s`, so that
a dead engine is not hammered and a restarted one is seen again soon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx

from spillway_router.core.frozen import dataclass
from spillway_router.signals.engines import EngineMetrics
from spillway_router.signals.exposition import EngineSample, ExpositionReader

Clock = Callable[[], float]
"""Monotonic seconds."""

OnSample = Callable[[EngineSample | None, str, float], None]
"""Takes the sample or None, the reason where it is None ("" otherwise), and the time of it. Must not raise."""


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """Times in seconds, size in bytes."""

    interval_s: float = 1.0
    timeout_s: float = 1.0
    """For a whole reading, connecting included."""
    max_backoff_s: float = 5.0
    max_bytes: int = 4 * 1024 * 1024
    """A page larger than this is refused: no engine has one, and it would be held in memory."""


def pause_s(failures: int, settings: ScrapeSettings) -> float:
    """Seconds from the begin of one reading to the next, after so many failures in a row: doubling, bounded."""
    doubled = settings.interval_s * 2.0 ** min(max(0, failures - 1), 16)
    return max(settings.interval_s, min(settings.max_backoff_s, doubled))


def server_root(base_url: str) -> str:
    """`http://host:port/v1` -> `http://host:port`: metrics and health lie beside the API, not under it."""
    return base_url.rstrip("/").removesuffix("/v1")


class Scraper:
    """Polls one engine's metrics. `run` until cancelled; `scrape` once.

    `client` is the caller's, with whatever transport (TCP, Unix socket) and credentials the engine needs; it is not
    closed here. Nothing is raised for an engine that fails: that is a reading without a sample.
    """

    __slots__ = ("_client", "_clock", "_on_sample", "_reader", "_settings", "_url")

    def __init__(
        self,
        client: httpx.AsyncClient,
        root_url: str,
        metrics: EngineMetrics,
        on_sample: OnSample,
        settings: ScrapeSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._url = root_url.rstrip("/") + metrics.metrics_path if metrics.metrics_path else ""
        self._reader = ExpositionReader(metrics)
        self._on_sample = on_sample
        self._settings = settings or ScrapeSettings()
        self._clock = clock

    async def run(self) -> None:
        """Polls until cancelled. Returns at once for an engine without a metrics page."""
        if not self._url:
            self._on_sample(None, "this engine has no metrics page", self._clock())
            return
        failures = 0
        while True:
            began = self._clock()
            sample, reason = await self.scrape()
            self._on_sample(sample, reason, self._clock())
            failures = failures + 1 if sample is None else 0
            await asyncio.sleep(max(0.0, began + pause_s(failures, self._settings) - self._clock()))

    async def scrape(self) -> tuple[EngineSample | None, str]:
        """One reading: the sample, or None and what went wrong."""
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                text, reason = await self._fetch()
        except TimeoutError:
            return None, f"metrics page did not come within {self._settings.timeout_s:g} s"
        except httpx.HTTPError as error:
            return None, f"metrics page could not be read: {_describe(error)}"
        return (None, reason) if text is None else (self._reader.read(text), "")

    async def _fetch(self) -> tuple[str | None, str]:
        # Packing a page costs the engine's front end more than sending it over loopback.
        headers = {"accept": "text/plain;version=0.0.4", "accept-encoding": "identity"}
        limit = self._settings.max_bytes
        async with self._client.stream("GET", self._url, headers=headers, timeout=None) as response:
            if response.status_code != httpx.codes.OK:
                return None, f"metrics page answered HTTP {response.status_code}"
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > limit:
                    return None, f"metrics page is larger than {limit} bytes"
        return body.decode("utf-8", "replace"), ""


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
