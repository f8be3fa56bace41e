"""A router in front of llm-d and KServe, each named as one local backend (docs/deploy/in-front-of.md).

gateways.yaml holds their refusals and where they are documented; a stand-in gives them over a real socket.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.proxy.helpers import whole

from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import Router, cloud, error_of, events, routing, settings
from spillway_router.testing.streams import DONE, delta

REPLIES = yaml.safe_load(Path(__file__).with_name("gateways.yaml").read_text(encoding="utf-8"))
FULL = [one for one in REPLIES if one["means"] == "full"]
DOWN = [one for one in REPLIES if one["means"] == "down"]
PAUSE_S = 5.0
"""Longer than a full backend, or one whose breaker is open, gets nothing."""


def refusing(reply: Mapping[str, Any]) -> Answer:
    return Answer(reply["body"].encode(), reply["status"], tuple(reply["headers"].items()))


@asynccontextmanager
async def before(
    gateway: FaultUpstream, clock: ManualClock, prefix: str = ""
) -> AsyncIterator[tuple[FaultUpstream, Router]]:
    """Run a cloud, and a router with the gateway as its one local backend."""
    url = f"{gateway.root}{prefix}/v1"
    cluster = f"{{name: cluster, provider: generic, local: true, model: m, base_url: '{url}', max_sequences: 64}}"
    async with (
        FaultUpstream(whole("cloud", -0.1)) as other,
        routing(settings(cluster, cloud(other)), clock=clock) as router,
    ):
        yield other, router


def breaker_open(router: Router) -> bool:
    return router.runtime.board.current(router.runtime.services.clock()).backends["cluster"].breaker_open


@pytest.mark.parametrize("reply", FULL, ids=[one["name"] for one in FULL])
async def test_a_full_cluster_overflows_and_stays_in_the_rotation(reply: Mapping[str, Any]) -> None:
    clock = ManualClock()
    async with FaultUpstream(refusing(reply)) as gateway, before(gateway, clock) as (_, router):
        for asked in range(1, 6):
            answer = await router.chat()
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-spillway-decision"] == "overflow"
            assert answer.headers["x-spillway-reason"] == "queue"
            assert len(gateway.seen) == asked
            clock.advance(PAUSE_S)
        assert not breaker_open(router)
        gateway.answer = whole("cluster", -0.1)
        assert (await router.chat()).headers["x-spillway-backend"] == "cluster"


@pytest.mark.parametrize("reply", FULL, ids=[one["name"] for one in FULL])
async def test_a_private_request_is_told_to_come_again_where_the_cluster_is_full(reply: Mapping[str, Any]) -> None:
    async with FaultUpstream(refusing(reply)) as gateway, before(gateway, ManualClock()) as (other, router):
        answer = await router.chat(x_spillway_privacy="local-only")
        assert answer.status_code == 503, answer.text
        assert error_of(answer)["code"] == "local_only_unavailable"
        assert 1 <= float(answer.headers["retry-after"]) <= 60
        assert not other.seen
        assert len(gateway.seen) == 1, "a full cluster is not asked again to be spared"


@pytest.mark.parametrize("reply", DOWN, ids=[one["name"] for one in DOWN])
async def test_a_cluster_that_nobody_serves_is_bridged_and_left_alone(reply: Mapping[str, Any]) -> None:
    clock = ManualClock()
    async with FaultUpstream(refusing(reply)) as gateway, before(gateway, clock) as (_, router):
        first = await router.chat()
        assert first.status_code == 200, first.text
        assert first.headers["x-spillway-backend"] == "cloud"
        assert first.headers["x-spillway-decision"] == "fallback"
        for _ in range(30):
            assert (await router.chat()).status_code == 200
        assert breaker_open(router)
        assert len(gateway.seen) < 25
        gateway.answer = whole("cluster", -0.1)
        clock.advance(PAUSE_S)
        assert (await router.chat()).headers["x-spillway-backend"] == "cluster"


@pytest.mark.parametrize("prefix", ["", "/openai", "/team/llama", "/publishers/team/models/llama"])
async def test_the_routes_of_kserve_are_part_of_the_base_url(prefix: str) -> None:
    async with (
        FaultUpstream(whole("cluster", -0.1)) as gateway,
        before(gateway, ManualClock(), prefix) as (_, router),
    ):
        assert (await router.chat()).headers["x-spillway-backend"] == "cluster"
        assert gateway.seen[0].path == f"{prefix}/v1/chat/completions"


@pytest.mark.parametrize("end", ["rst", "fin"])
async def test_a_stream_that_is_evicted_after_its_first_token_ends_with_one_error(end: Any) -> None:
    # Envoy has sent its head by then, so that an ImmediateResponse can only end the connection.
    begun = Answer.stream(delta({"content": "alpha"}), end=end)
    async with FaultUpstream(begun) as gateway, before(gateway, ManualClock()) as (other, router):
        reply = await router.chat({"stream": True})
        *content, last = events(reply)
        assert len(content) == 1
        assert b"upstream_interrupted" in last
        assert not other.seen


async def test_a_stream_passes_as_the_engine_wrote_it() -> None:
    said = delta({"content": "alpha"}) + delta({}, "stop") + DONE
    async with FaultUpstream(Answer.stream(said)) as gateway, before(gateway, ManualClock()) as (_, router):
        reply = await router.chat({"stream": True})
        assert reply.headers["x-spillway-backend"] == "cluster"
        assert reply.content == said
