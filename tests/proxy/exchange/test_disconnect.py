"""A client that leaves takes its upstream call with it: connection, ledger row, backlog, tasks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.proxy.helpers import asking

from spillway_router.core.routing.model import RequestRecord
from spillway_router.testing import Answer, Arrival, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, Router, cloud, pair, routing, settings
from spillway_router.testing.streams import delta

PROMPT_S = 1.0
"""How soon the upstream must be closed (docs/stream-promise.md, point 6)."""
BEGUN = Answer.stream(delta({"role": "assistant"}) + delta({"content": "alpha"}), end="hang")
SILENT = Answer(silent=True, end="hang")
HALF = Answer(b"x" * 50, cut=10, end="hang")


async def closed_soon(router: Router, arrived: Arrival) -> RequestRecord:
    """Return the request's record once the upstream's connection closed in time and nothing of the request is left."""
    async with asyncio.timeout(PROMPT_S):
        await arrived.closed.wait()
    await router.until(lambda: not any(router.runtime.board.in_flight().values()))
    backends = router.runtime.board.current(router.runtime.services.clock() + 1).backends
    assert all(b.backlog is None or b.backlog.waiting_first_token == 0 for b in backends.values())
    await router.until(lambda: len(router.runtime.services.records.recent(9)) > 0)
    return router.runtime.services.records.recent(1)[0]


@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        pytest.param(BEGUN, True, id="mid-stream"),
        pytest.param(SILENT, True, id="before the head of a stream"),
        pytest.param(Answer.stream(b": ping\n\n", end="hang"), True, id="before the first word"),
        pytest.param(SILENT, False, id="before a whole answer"),
        pytest.param(HALF, False, id="during a whole answer"),
    ],
)
async def test_a_client_that_leaves_closes_its_upstream(answer: Answer, stream: bool, tmp_path: Path) -> None:
    async with pair(answer, BEGUN, folder=tmp_path) as (engine, other, router):
        async with asking(router, {"stream": stream}) as reader:
            arrived = await engine.arrival()
            if answer is BEGUN:
                await asyncio.wait_for(reader.readuntil(b"alpha"), LIMIT_S)
        record = await closed_soon(router, arrived)
        assert (record.status, record.code) == (499, "client_left")
        assert [a.outcome.kind for a in record.attempts] == ["cancelled"]
        await router.until(lambda: bool(router.ledger.entries_of(record.facts.request_id)))
        (row,) = router.ledger.entries_of(record.facts.request_id)
        assert (row.kind, row.status, row.amount_nano) == ("charged", "aborted", 0)
        assert not other.seen


async def test_leaving_a_paid_stream_is_charged_and_its_hold_closed(tmp_path: Path) -> None:
    async with FaultUpstream(BEGUN) as paid, routing(settings(cloud(paid)), tmp_path) as router:
        async with asking(router, {"stream": True, "max_tokens": 100}) as reader:
            arrived = await paid.arrival()
            await asyncio.wait_for(reader.readuntil(b"alpha"), LIMIT_S)
        record = await closed_soon(router, arrived)
        request_id = record.facts.request_id
        await router.until(lambda: len(router.ledger.entries_of(request_id)) == 2)
        hold, charge = router.ledger.entries_of(request_id)
        # Nobody knows if this provider stops: what came is charged as an estimate, and the bound is noted beside it.
        assert (hold.kind, charge.kind, charge.status) == ("reserved", "charged", "aborted")
        assert 0 < charge.amount_nano == charge.estimated_nano < charge.at_most_nano == hold.reserved_nano
        assert router.ledger.open_reservations(0, 2**62) == ()


async def test_leaving_during_an_escalation_ends_both_attempts(tmp_path: Path) -> None:
    scored = {"content": [{"token": "a", "logprob": -5.0}, {"token": "b", "logprob": -4.0}]}
    draft = {"choices": [{"index": 0, "message": {"content": "ab"}, "finish_reason": "stop", "logprobs": scored}]}
    more = "confidence: {threshold: 0.9, escalate_to: [cloud]}\n"
    async with pair(Answer.json(draft), SILENT, more=more, folder=tmp_path) as (_, other, router):
        async with asking(router, {}):
            arrived = await other.arrival()
        record = await closed_soon(router, arrived)
        assert record.code == "client_left"
        await router.until(lambda: len(router.ledger.entries_of(record.facts.request_id)) == 3)
        ends = {e.backend: e.status for e in router.ledger.entries_of(record.facts.request_id) if e.status}
        assert ends == {"local": "discarded", "cloud": "aborted"}


async def test_many_leave_at_once() -> None:
    async with pair(BEGUN) as (engine, _, router):

        async def visit() -> None:
            async with asking(router, {"stream": True}) as reader:
                await asyncio.wait_for(reader.readuntil(b"alpha"), LIMIT_S)

        await asyncio.gather(*(visit() for _ in range(40)))
        for arrived in engine.seen:
            await closed_soon(router, arrived)
        assert len(engine.seen) == 40
        await router.until(lambda: len(router.runtime.services.records.recent(99)) == 40)
        assert {r.code for r in router.runtime.services.records.recent(99)} == {"client_left"}


async def test_a_client_that_leaves_with_its_body_half_sent_reaches_nobody() -> None:
    async with pair(BEGUN) as (engine, _, router):
        host, _, port = router.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(head + b'content-length: 100\r\n\r\n{"model":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        engine.answer = Answer.json({"choices": [{"message": {}, "finish_reason": "stop"}]})
        assert (await router.chat()).status_code == 200
        assert len(engine.seen) == 1


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    """The relay waits for the reader instead of filling memory, and waiting for the reader is no stall."""
    words = delta({"content": "x" * 1000}) * 3000
    more = "limits: {stall_s: 0.2}\n"
    body = words + delta({}, "stop") + b"data: [DONE]\n\n"
    async with pair(Answer.stream(body, piece=50_000), more=more) as (_, _, router):
        async with asking(router, {"stream": True}) as reader:
            await asyncio.wait_for(reader.readuntil(b"xxx"), LIMIT_S)
            clock = asyncio.get_running_loop()
            paused = asyncio.Event()
            clock.call_later(0.5, paused.set)  # longer than the stall limit
            await paused.wait()
            rest = bytearray()
            while b"[DONE]" not in rest[-100:] and b"upstream_interrupted" not in rest[-400:]:
                rest += await asyncio.wait_for(reader.read(1 << 20), LIMIT_S)
        assert b"upstream_interrupted" not in rest
        assert rest.count(b'"content"') >= 2990
