"""A fault of the router itself within a request: the client is told once, the record says so, and it is counted."""

from __future__ import annotations

import logging
from typing import Any, cast

import orjson
import pytest
from tests.proxy.exchange.scene import RecordingClient, scene

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.model import RequestRecord
from spillway_router.proxy.exchange.exchange import Admitted, answer
from spillway_router.testing import Answer, FaultUpstream, streams
from spillway_router.testing.harness import cloud, settings

pytestmark = pytest.mark.unexpected_errors

WORD = streams.chat("alpha")


class FaultyClient(RecordingClient):
    """A client in which one method raises once, before it does anything or (`late`) when it has done all."""

    def __init__(self, method: str, body: bytes, *, late: bool = False) -> None:
        super().__init__("chat", body)
        works = getattr(self, method)

        def fails_once(*arguments: Any) -> None:
            setattr(self, method, works)
            if late:
                works(*arguments)
            raise RuntimeError("a seeded fault")

        setattr(self, method, fails_once)


async def answered(client: RecordingClient, upstream: FaultUpstream) -> RequestRecord:
    """Answer the client's request by the upstream; return its record."""
    async with scene(settings(cloud(upstream))) as stage:
        caller = stage.config.auth.caller({"host": "localhost"}, 0.0)
        admitted = Admitted(stage.config, cast("Any", caller), stage.services.clock())
        await answer(stage.services, admitted, cast("Any", client))
        (record,) = stage.hooked
        return record


def body(*, stream: bool) -> bytes:
    return orjson.dumps({"model": "auto", "messages": [{"role": "user", "content": "?"}], "stream": stream})


@pytest.mark.parametrize("method", ["begin_stream", "write"])
async def test_a_fault_within_a_stream(method: str, caplog: pytest.LogCaptureFixture) -> None:
    client = FaultyClient(method, body(stream=True))
    before = UNEXPECTED.counts["request"]
    begun = b"".join(WORD.events[:2])
    reply = Answer.stream(b"".join(WORD.events[:3]) + WORD.events[2] * 40 + b"".join(WORD.events[3:]), piece=len(begun))
    async with FaultUpstream(reply) as upstream:
        with caplog.at_level(logging.ERROR):
            record = await answered(client, upstream)
    assert (record.status, record.code) == (500, "internal_error")
    assert [a.outcome.detail for a in record.attempts] == ["an unexpected error in the router"]
    assert UNEXPECTED.counts["request"] == before + 1
    (logged,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert logged.exc_info
    if method == "begin_stream":
        assert (client.status, orjson.loads(client.content)["error"]["code"]) == (500, "internal_error")
        assert not client.stream
    else:
        assert client.ended
        assert client.stream.count(b"internal_error") == 1
        assert b"[DONE]" not in client.stream


async def test_a_fault_before_a_whole_answer() -> None:
    client = FaultyClient("reply", body(stream=False))
    whole = {"choices": [{"message": {"content": "alpha"}, "finish_reason": "stop"}]}
    async with FaultUpstream(Answer.json(whole)) as upstream:
        record = await answered(client, upstream)
    assert (record.status, record.code) == (500, "internal_error")
    assert (client.status, orjson.loads(client.content)["error"]["code"]) == (500, "internal_error")


async def test_a_fault_after_the_answer_sends_nothing_more() -> None:
    client = FaultyClient("reply", body(stream=False), late=True)
    whole = {"choices": [{"message": {"content": "alpha"}, "finish_reason": "stop"}]}
    before = UNEXPECTED.counts["request"]
    async with FaultUpstream(Answer.json(whole)) as upstream:
        record = await answered(client, upstream)
    assert (record.status, client.status, orjson.loads(client.content)) == (200, 200, whole)
    assert UNEXPECTED.counts["request"] == before + 1
