"""HTTP at the frontend: framing, the order of pipelined requests, and the life of a connection."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.proxy.entry.helpers import CHAT, answer_of, post, saying, talking

from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, pair
from spillway_router.testing.streams import chat, delta


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    async with pair(saying("last")) as (engine, _, router), talking(router) as (reader, writer):
        gate = asyncio.Event()
        first = saying("first")
        engine.script.extend([Answer(first.body, headers=first.headers, gate=gate), saying("third")])
        bad = post(fields={"model": 7})
        get = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
        writer.write(post() + bad + post() + get + post())
        await engine.arrival()
        assert len(engine.seen) == 1
        gate.set()
        received = [await answer_of(reader) for _ in range(5)]
        assert [status for status, _ in received] == [200, 400, 200, 200, 200]
        assert [text in body for text, (_, body) in zip((b"first", b"model", b"third"), received, strict=False)] == [
            True
        ] * 3
        assert b"last" in received[4][1]


async def test_answers_of_every_kind_keep_their_order_on_one_connection() -> None:
    async with pair(saying("small")) as (engine, _, router), talking(router) as (reader, writer):
        stream = Answer.stream(chat("streamed").body)
        engine.script.extend([saying("small"), saying("large" * 20_000), stream, saying("last")])
        writer.write(post() + post() + post(fields={"stream": True}) + post(more=b"connection: close\r\n"))
        async with asyncio.timeout(LIMIT_S):
            received = await reader.read()
        places = [received.index(text) for text in (b"small", b"largelarge", b"streamed", b"last")]
        assert places == sorted(places)
        assert received.count(b"HTTP/1.1 200") == 4


async def test_a_pipelined_request_of_a_client_that_left_is_never_sent() -> None:
    async with pair(Answer(silent=True, end="hang")) as (engine, _, router):
        async with talking(router) as (_, writer):
            writer.write(post() + post())
            arrived = await engine.arrival()
        async with asyncio.timeout(LIMIT_S):
            await arrived.closed.wait()
        await router.until(lambda: len(router.runtime.services.records.recent(9)) == 1)
        assert len(engine.seen) == 1


async def test_a_connection_is_kept_open_or_closed_as_the_client_asks() -> None:
    async with pair(saying("hi")) as (_, _, router):
        async with talking(router) as (reader, writer):
            for more in (b"", b"", b"connection: close\r\n"):
                writer.write(post(more=more))
                assert (await answer_of(reader))[0] == 200
            assert await reader.read() == b""
        async with talking(router) as (reader, writer):
            writer.write(post(version=b"1.0"))
            assert (await answer_of(reader))[0] == 200
            assert await reader.read() == b""


async def test_a_stream_for_an_http_1_0_client_ends_with_its_connection() -> None:
    stream = Answer.stream(delta({"content": "alpha"}) + delta({}, "stop") + b"data: [DONE]\n\n")
    async with pair(stream) as (_, _, router), talking(router) as (reader, writer):
        writer.write(post(fields={"stream": True}, version=b"1.0"))
        answer = await reader.read()
        assert b"transfer-encoding" not in answer.lower()
        assert answer.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_expects_100_continue_gets_it() -> None:
    async with pair(saying("hi")) as (engine, _, router), talking(router) as (reader, writer):
        head, _, body = post(more=b"expect: 100-continue\r\n").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert not engine.seen
        writer.write(body)
        assert (await answer_of(reader))[0] == 200


async def test_a_body_in_pieces_and_chunks_arrives_whole() -> None:
    async with pair(saying("hi")) as (engine, _, router), talking(router) as (reader, writer):
        body = post(fields={"model": "m"}).partition(b"\r\n\r\n")[2]
        head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        head += b"transfer-encoding: chunked\r\n\r\n"
        framed = b"".join(b"1\r\n%b\r\n" % body[i : i + 1] for i in range(len(body))) + b"0\r\n\r\n"
        for piece in (head % CHAT, framed[:100], framed[100:]):
            writer.write(piece)
            await writer.drain()
        assert (await answer_of(reader))[0] == 200
        assert engine.seen[0].body == body


@pytest.mark.parametrize("path", [b"/v1/chat/completions?api-version=1", b"/v1/chat/completions"])
async def test_a_query_does_not_change_the_route(path: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(post(path))
        assert (await answer_of(reader))[0] == 200


async def test_bytes_that_are_not_http_get_an_error_and_a_closed_connection() -> None:
    async with pair(saying("hi")) as (engine, _, router), talking(router) as (reader, writer):
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        status, body = await answer_of(reader)
        assert (status, json.loads(body)["error"]["code"]) == (400, "invalid_request")
        assert await reader.read() == b""
        assert not engine.seen


async def test_a_refused_body_is_discarded_and_the_connection_stays_usable() -> None:
    async with pair(saying("hi"), more="limits: {body_mb: 0.001}\n") as (engine, _, router):
        async with talking(router) as (reader, writer):
            writer.write(post(fields={"user": "x" * 100_000}) + post())
            assert [(await answer_of(reader))[0] for _ in range(2)] == [413, 200]
        assert len(engine.seen) == 1


async def test_above_the_limit_of_requests_in_progress_the_answer_is_503_at_once() -> None:
    more = "limits: {in_flight: 1}\n"
    async with (
        pair(Answer(silent=True, end="hang"), more=more) as (engine, _, router),
        talking(router) as (_, writer),
    ):
        writer.write(post())
        await engine.arrival()
        reply = await router.chat()
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        assert reply.headers["retry-after"] == "1"


async def test_a_client_that_leaves_during_its_body_releases_its_slot() -> None:
    async with pair(saying("hi"), more="limits: {in_flight: 1}\n") as (_, _, router):
        async with talking(router) as (_, writer):
            writer.write(post()[:-5])
            await writer.drain()
        async with asyncio.timeout(LIMIT_S):
            while (await router.chat()).status_code != 200:
                pass
