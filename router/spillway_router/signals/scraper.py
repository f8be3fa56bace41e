"""Reads an engine's metrics page periodically and reports every result.

Each local backend has one scraper. The result of a scrape is a sample, or None with the reason: the receiver decides
what to do without a sample (the backlog then decides alone, and an alarm is raised). Scrapes never overlap: the next
one begins after the previous one has ended, at the latest after its timeout. After a failure the pauses double up to
`max_backoff_s`, so that a dead engine is not hammered and a restarted one is noticed soon.

llama.cpp has its metrics page only if it is started with `--metrics`. Without it the page of its slots says how many
requests run; how many wait there nobody says, so that the sample is marked as incomplete.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from spillway_router.aio.periodic import Periodic, Rhythm, TimeSource
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.http_client.connection import TooLargeError, TransportError
from spillway_router.signals.engine_client import EngineClient
from spillway_router.signals.engines import EngineMetrics
from spillway_router.signals.exposition import EngineSample, ExpositionReader
from spillway_router.signals.own_pages import busy_slots

Clock = Callable[[], float]
"""Monotonic seconds."""

_TEXT_FORMAT = "text/plain;version=0.0.4"
"""What exposition.py reads."""

OnSample = Callable[[EngineSample | None, str, float], None]
"""Receives the sample or None, the reason if it is None ("" otherwise), and the time in monotonic seconds. It must not
raise."""


@dataclass(frozen=True, slots=True)
class ScrapeSettings:
    """Times in seconds, size in bytes."""

    interval_s: float = 1.0
    timeout_s: float = 1.0
    """For a whole scrape, including the connection."""
    max_backoff_s: float = 5.0
    max_bytes: int = 4 * 1024 * 1024
    """A page larger than this is rejected: no engine has one, and it would have to fit in memory."""


def pause_s(failures: int, settings: ScrapeSettings) -> float:
    """Return the seconds from the start of one scrape to the next, after this many failures in a row."""
    doubled = settings.interval_s * 2.0 ** min(max(0, failures - 1), 16)
    return max(settings.interval_s, min(settings.max_backoff_s, doubled))


_SWITCHED_OFF = "the metrics page answered HTTP 501"


class Scraper:
    """Scrapes one engine's metrics page. `clock` is monotonic seconds.

    `client` belongs to the caller and is not closed here. A failing engine raises nothing: it is a result without a
    sample.
    """

    __slots__ = (
        "_client", "_clock", "_failures", "_metrics", "_on_sample", "_path", "_reader", "_settings", "_slots_path",
    )  # fmt: skip

    def __init__(
        self,
        client: EngineClient,
        metrics: EngineMetrics,
        on_sample: OnSample,
        settings: ScrapeSettings | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._client = client
        self._path, self._slots_path = metrics.metrics_path, metrics.slots_path
        self._metrics = metrics
        self._reader = ExpositionReader(metrics)
        self._on_sample = on_sample
        self._settings = settings or ScrapeSettings()
        self._clock = clock
        self._failures = 0

    async def run(self) -> None:
        """Scrape until cancelled. Returns at once for an engine without a metrics page."""
        if not self._path:
            self._on_sample(None, "this engine has no metrics page", self._clock())
            return
        rhythm = Rhythm(self._pause_s, from_start=True, longest_run_s=30.0)
        name = f"scrape of {self._client.place}"
        await Periodic(name, rhythm, self._scrape_and_report, time_source=TimeSource(self._clock)).run()

    def _pause_s(self) -> float:
        return pause_s(self._failures, self._settings)

    async def _scrape_and_report(self) -> None:
        sample, reason = await self.scrape()
        self._failures = self._failures + 1 if sample is None else 0
        self._on_sample(sample, reason, self._clock())

    async def scrape(self) -> tuple[EngineSample | None, str]:
        """Scrape once. Return the sample, or None and what went wrong."""
        sample: EngineSample | None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                text, reason = await self._fetch(self._path)
                if text is None and reason == _SWITCHED_OFF and self._slots_path:
                    sample = await self._read_slots()
                    return sample, reason if sample is None else ""
            sample = None if text is None else self._reader.read(text)
        except TimeoutError:
            return None, f"the metrics page did not arrive within {self._settings.timeout_s:g} s"
        except TransportError as error:
            return None, f"the metrics page could not be read: {_describe(error)}"
        except Exception as error:  # a page that breaks its reader is one that can't be read
            UNEXPECTED.note("background", error, "the metrics page of %s could not be read", self._client.place)
            return None, f"the metrics page could not be read: {type(error).__name__}"
        return sample, reason

    async def _read_slots(self) -> EngineSample | None:
        """Return what the slots say of the load; None if that page is switched off as well."""
        text, _ = await self._fetch(self._slots_path)
        try:
            running = None if text is None else busy_slots(json.loads(text))
        except ValueError:
            return None
        if running is None:
            return None
        return EngineSample(EngineLoad(waiting=0.0, running=float(running), kv_usage=0.0), self._metrics.waiting)

    async def _fetch(self, path: str) -> tuple[str | None, str]:
        limit = self._settings.max_bytes
        try:
            reply = await self._client.get(path, limit, _TEXT_FORMAT)
        except TooLargeError:
            return None, f"the metrics page is larger than {limit} bytes"
        if reply.status != HTTPStatus.OK:
            return None, f"the metrics page answered HTTP {reply.status}"
        return reply.body.decode("utf-8", "replace"), ""


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
