"""The scraper against real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.signals.servers import Reply, Server, asking, endless, never, reply, serving

from spillway_router.core.routing.backlog import EngineLoad
from spillway_router.signals.engines import VLLM, WITHOUT_METRICS, EngineMetrics
from spillway_router.signals.exposition import EngineSample
from spillway_router.signals.scraper import Scraper, ScrapeSettings, pause_s

PAGE = (Path(__file__).parent / "data" / "vllm_0.32_cpu_busy.txt").read_text()
QUICK = ScrapeSettings(interval_s=0.01, timeout_s=0.2, max_backoff_s=0.04)

Reading = tuple[EngineSample | None, str, float]


class Readings:
    """Collects the results of scrapes; `next` waits for one, five seconds at most."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Reading] = asyncio.Queue()

    def take(self, sample: EngineSample | None, reason: str, monotonic_s: float) -> None:
        self._queue.put_nowait((sample, reason, monotonic_s))

    async def next(self) -> Reading:
        async with asyncio.timeout(5):
            return await self._queue.get()


@asynccontextmanager
async def scraping(
    answer: Reply, settings: ScrapeSettings = QUICK, metrics: EngineMetrics = VLLM
) -> AsyncIterator[tuple[Server, Readings]]:
    readings = Readings()
    async with serving(metrics=answer) as server:
        with asking(server.url) as client:
            scraper = Scraper(client=client, metrics=metrics, on_sample=readings.take, settings=settings)
            task = asyncio.create_task(scraper.run())
            try:
                yield server, readings
            finally:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task


async def test_scrapes_repeat_without_overlap() -> None:
    async with scraping(reply(PAGE)) as (server, readings):
        got = [await readings.next() for _ in range(5)]
        assert server.open_most == 1
    for sample, reason, _ in got:
        assert sample is not None
        assert sample.load == EngineLoad(waiting=0, running=8, kv_usage=0.004397215097105112)
        assert reason == ""
    times = [monotonic_s for _, _, monotonic_s in got]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply("busy", 503), "the metrics page answered HTTP 503"),
        (reply("", 404), "the metrics page answered HTTP 404"),
        (never, "the metrics page did not arrive within 0.2 s"),
        (endless, "the metrics page is larger than 1000000 bytes"),
    ],
)
async def test_a_page_that_cannot_be_read_gives_a_reason(answer: Reply, reason: str) -> None:
    settings = ScrapeSettings(timeout_s=5.0 if answer is endless else 0.2, max_bytes=1_000_000)
    async with scraping(answer, settings) as (_, readings):
        sample, why, _ = await readings.next()
        assert (sample, why) == (None, reason)


async def test_a_broken_page_says_what_is_missing() -> None:
    async with scraping(reply(b"\xff\xfe\x00 garbage")) as (_, readings):
        sample, why, _ = await readings.next()
        assert sample is not None
        assert (sample.load, why) == (None, "")
        assert "vllm:num_requests_running" in sample.missing


def test_pauses_double_to_their_bound() -> None:
    settings = ScrapeSettings(interval_s=1.0, max_backoff_s=5.0)
    assert [pause_s(failures, settings) for failures in (0, 1, 2, 3, 4, 5, 10_000)] == [1, 1, 2, 4, 5, 5, 5]
    assert pause_s(9, ScrapeSettings(interval_s=10.0, max_backoff_s=5.0)) == 10.0


async def test_a_page_is_asked_for_in_the_format_that_is_read() -> None:
    """Exporters that know several send another one to who accepts it."""
    async with scraping(reply(PAGE)) as (server, readings):
        await readings.next()
        assert server.heads[0]["accept"] == "text/plain;version=0.0.4"
        assert server.heads[0]["accept-encoding"] == "identity"


async def test_scraping_continues_after_failures() -> None:
    async with scraping(reply("", 500)) as (server, readings):
        assert [(await readings.next())[0] for _ in range(4)] == [None] * 4
        server.replies["/metrics"] = reply(PAGE)
        while (await readings.next())[0] is None:
            pass


async def test_a_dead_engine_gives_a_reason_too() -> None:
    async with scraping(reply(PAGE)) as (server, readings):
        assert (await readings.next())[0] is not None
        server.close()
        while (reading := await readings.next())[0] is not None:
            pass
        assert reading[1].startswith("the metrics page could not be read: ")


async def test_an_engine_without_metrics_gets_no_request() -> None:
    readings = Readings()
    async with serving() as server:
        with asking(server.url) as client:
            await Scraper(client, WITHOUT_METRICS, readings.take).run()
        assert (await readings.next())[:2] == (None, "this engine has no metrics page")
        assert server.requested == []
