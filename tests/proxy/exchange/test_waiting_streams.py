"""A stream whose first content is late: the client gets comments meanwhile, and other backends may still answer."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from spillway_router.proxy.exchange import streamed_answer
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, Router, pair
from spillway_router.testing.streams import DONE, chat

WAITING = b": waiting\n\n"


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_answer, "FIRST_BYTE_S", 0.05)


async def waited(router: Router, engine: FaultUpstream, gate: asyncio.Event) -> tuple[httpx.Response, bytes]:
    """Ask for a stream, open the gate once a comment came, and return the whole body."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}
    async with asyncio.timeout(LIMIT_S), router.client.stream("POST", "/v1/chat/completions", json=body) as reply:
        await engine.arrival()
        received = b""
        async for part in reply.aiter_raw():
            if not received:
                assert part.startswith(WAITING)
                gate.set()
            received += part
        return reply, received


async def test_a_client_gets_a_comment_while_the_engine_is_silent() -> None:
    gate, whole = asyncio.Event(), chat("alpha").body
    async with pair(Answer(whole, headers=Answer.stream(b"").headers, gate=gate)) as (engine, _, router):
        reply, received = await waited(router, engine, gate)
        assert reply.status_code == 200
        assert received.startswith(WAITING)
        assert received.endswith(DONE)
        assert (received.count(b"alpha"), received.count(DONE)) == (1, 1)
        assert b'"spillway":{"decision":"local"' in received


async def test_another_backend_may_answer_after_the_comment() -> None:
    gate = asyncio.Event()
    broken = Answer.json({"error": {"message": "no"}}, status=503)
    late = Answer(broken.body, status=503, headers=broken.headers, gate=gate)
    async with pair(late, Answer.stream(chat("beta").body)) as (engine, cloud, router):
        _, received = await waited(router, engine, gate)
        assert received.count(b"beta") == 1
        assert received.endswith(DONE)
        assert b'"backend":"cloud"' in received
        assert len(cloud.seen) == 1


async def test_a_failure_after_the_comment_is_one_error_event() -> None:
    gate = asyncio.Event()
    broken = Answer.json({"error": {"message": "no"}}, status=503)
    late = Answer(broken.body, status=503, headers=broken.headers, gate=gate)
    async with pair(late, broken) as (engine, _, router):
        _, received = await waited(router, engine, gate)
        assert received.count(b"upstream_interrupted") == 1
        assert DONE not in received
        (record,) = router.runtime.services.records.recent(9)
        assert record.status >= 500


async def test_a_quick_stream_has_no_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_answer, "FIRST_BYTE_S", LIMIT_S)
    async with pair(Answer.stream(chat("alpha").body)) as (_, _, router):
        reply = await router.chat({"stream": True})
        assert WAITING not in reply.content
        assert b"spillway" not in reply.content
