"""The Now page: one sentence, and a live feed that is rendered once for everybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from tests.proxy.control.helpers import WHOLE, bearer

from spillway_router.dashboard.live import Feed, event_of
from spillway_router.dashboard.traffic import Step, Traffic, counted, quantile_s
from spillway_router.testing.harness import cloud, local, pair, routing, settings
from spillway_router.testing.upstream import FaultUpstream


async def test_the_sentence_says_that_all_is_well_and_where_requests_stayed() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        for _ in range(3):
            await router.chat()
        await router.chat({"model": "cloud/cloud-m"})
        now = (await router.client.get("/now.json")).json()
        assert now["tone"] == "good"
        assert now["sentence"].startswith("All well: 75% of 4 requests stayed on the GPU in the last 15 minutes;")
        assert [row["state"] for row in now["backends"]] == ["up", "up"]
        assert [row["decision"] for row in now["requests"]] == ["pinned", "local", "local", "local"]
        assert now["decision_counts"] == [["local", 3], ["other", 1]]


async def test_a_gpu_that_is_down_is_named_with_what_takes_its_requests() -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        router.runtime.board.health("local", "down", "connection refused")
        now = (await router.client.get("/now.json")).json()
        assert now["sentence"] == "local is down (connection refused); requests go to cloud."
        assert now["tone"] == "bad"
        router.runtime.board.health("cloud", "down", "gone")
        assert (await router.client.get("/now.json")).json()["sentence"] == "No backend can answer now."


async def test_a_router_without_a_gpu_says_where_requests_go() -> None:
    async with FaultUpstream(WHOLE) as other, routing(settings(cloud(other))) as router:
        sentence = (await router.client.get("/now.json")).json()["sentence"]
        assert sentence == "All well, without a GPU: every request goes to cloud."


async def test_the_live_page_streams_the_board_and_stops_with_its_session(tmp_path: Path) -> None:
    more = "keys: {required: true}\n"
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine), more=more), tmp_path) as router:
        viewer, admin = bearer(router, "viewer"), router.admin
        headers = {"accept": "text/event-stream", **viewer}
        async with router.client.stream("GET", "/now", headers=headers) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert (await anext(lines)).startswith("data: ")
            key_id = viewer["authorization"].split("-")[2]
            await router.client.request("DELETE", f"/admin/keys/{key_id}", headers=admin)
            await router.chat(**admin)  # something changes, so that the feed looks who may see it
            async with asyncio.timeout(20):
                async for _ in lines:
                    pass


async def test_the_feed_renders_once_per_change_for_all_and_not_without_viewers() -> None:
    texts = iter(["one", "one", "two", "three"])
    rendered: list[str] = []

    def snapshot() -> str:
        rendered.append(next(texts, "four"))
        return rendered[-1]

    feed = Feed(snapshot, every_s=0.001)
    first, second = feed.events(lambda: True), feed.events(lambda: True)
    assert await anext(first) == b"data: one\n\n"
    assert await anext(second) == b"data: one\n\n"
    async with asyncio.timeout(20):
        events = [await anext(first) for _ in range(2)]
    assert events[-1] in (b"data: three\n\n", b"data: four\n\n")
    feed.close()
    assert feed.is_full
    await first.aclose()
    await second.aclose()
    assert feed.viewers == 0
    count = len(rendered)
    await asyncio.sleep(0)
    assert len(rendered) == count


def test_a_text_of_several_lines_is_one_event() -> None:
    assert event_of("a\nb") == b"data: a\ndata: b\n\n"


def test_steps_are_counted_by_decision_and_old_ones_are_left_out() -> None:
    steps = [Step(0, Counter(local=2), [0.1, 0.3]), Step(15, Counter(overflow=1), [0.2])]
    assert counted(steps) == Counter(local=2, overflow=1)
    assert quantile_s(steps, 0.5) == 0.2
    assert quantile_s([], 0.5) is None
    assert [step.start_s for step in Traffic().steps(900.0)][-1] == 900
    assert len(Traffic().steps(900.0)) == 60


@pytest.mark.parametrize("path", ["/static/app.css", "/static/app.js", "/static/charts.js", "/static/favicon.svg"])
async def test_static_files_are_kept_by_browsers(path: str) -> None:
    async with pair(WHOLE, WHOLE) as (_, _, router):
        file = await router.client.get(path)
        assert file.status_code == 200
        assert "immutable" in file.headers["cache-control"]
        assert (await router.client.get("/static/bundle.json")).status_code == 404
