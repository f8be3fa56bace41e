"""What one client may take at most: heads, targets and trailers, time for a body, unread answers, connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.proxy.control.helpers import bearer
from tests.proxy.entry.helpers import CHAT, answer_of, post, saying, talking

from spillway_router.proxy.entry.connections import ConnectionCounts, counted_address
from spillway_router.proxy.entry.frontend import FrontendState
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import LIMIT_S, MESSAGES, Router, cloud, error_of, pair, routing, settings
from spillway_router.testing.streams import delta

LINE = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"


async def refusal_of(router: Router, sent: bytes) -> tuple[int, str]:
    """Send bytes and return status and code of the refusal, after which the connection must end."""
    async with talking(router) as (reader, writer):
        writer.write(sent)
        status, body = await answer_of(reader)
        assert await reader.read() == b""
        return status, json.loads(body)["error"]["code"]


async def sent_until_cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send on until the connection has ended; it must before 64 MB."""
    with contextlib.suppress(ConnectionError):
        for _ in range(8192):
            writer.write(b"a" * 8192)
            await writer.drain()
            if reader.at_eof():
                return
        pytest.fail("all of it was read")


HEADS = {
    "many headers": LINE + b"".join(b"h%d: v\r\n" % i for i in range(300)),
    "many headers of a control route": GET + b"".join(b"h%d: v\r\n" % i for i in range(300)),
    "one header without an end": LINE + b"x-a: " + b"a" * 200_000,
    "one whole header": GET + b"x-a: " + b"a" * 100_000 + b"\r\n\r\n",
    "one name without an end": LINE + b"a" * 200_000,
    "many headers that are complete": LINE + b"".join(b"h%d: %b\r\n" % (i, b"v" * 800) for i in range(100)) + b"\r\n",
}


@pytest.mark.parametrize("sent", HEADS.values(), ids=HEADS.keys())
async def test_a_head_that_is_too_large_gets_a_431_and_the_connection_closes(sent: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router):
        assert await refusal_of(router, sent) == (431, "request_too_large")


@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\nhost: localhost\r\n\r\n"], ids=["without an end", "complete"])
async def test_a_target_that_is_too_long_gets_a_414(end: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router):
        assert await refusal_of(router, b"GET /health?" + b"a" * 100_000 + end) == (414, "request_too_large")


async def test_a_head_that_comes_in_pieces_is_bounded_and_its_sender_is_cut_off() -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(LINE + b"x-a: ")
        await sent_until_cut(reader, writer)


async def test_an_ordinary_long_head_is_served() -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        writer.write(post(more=b"".join(b"h%d: %b\r\n" % (i, b"v" * 400) for i in range(100))))
        assert (await answer_of(reader))[0] == 200
        writer.write(b"GET /health?" + b"a" * 10_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await answer_of(reader))[0] == 200


@pytest.mark.parametrize("path", [CHAT, b"/v1/route/explain"])
async def test_trailers_without_an_end_are_cut_off(path: bytes) -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        chunked = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        writer.write(b"POST %b HTTP/1.1\r\nhost: localhost\r\n" % path + chunked + b"x-a: ")
        await sent_until_cut(reader, writer)


@pytest.mark.parametrize("path", [CHAT, b"/v1/documents/extract"])
@pytest.mark.parametrize("name", [b"x-spillway-privacy", b"X-Spillway_Privacy", b"x-spillway-route"])
async def test_a_hint_after_the_body_is_refused_and_nothing_is_sent(path: bytes, name: bytes) -> None:
    async with (
        FaultUpstream(saying("hi")) as other,
        routing(settings(cloud(other))) as router,
        talking(router) as (reader, writer),
    ):
        body = b'{"model":"auto","text":"x","messages":[{"role":"user","content":"x"}]}'
        head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % path
        chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
        writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"%b: local-only\r\n\r\n" % name)
        status, answer = await answer_of(reader)
        assert (status, b"before the body" in answer) == (400, True)
        assert not other.seen


async def test_other_headers_after_the_body_are_dropped() -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        key = router.admin["authorization"].encode()
        chunked = b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        writer.write(b"POST /admin/reload HTTP/1.1\r\nhost: localhost\r\n" + chunked + b"authorization: " + key)
        writer.write(b"\r\n\r\n")
        assert (await answer_of(reader))[0] == 401


@pytest.mark.parametrize("path", ["/v1/route/explain", "/v1/documents/extract", "/v1/feedback", "/admin/reload", "/no"])
async def test_a_body_that_does_not_come_ends_on_every_route(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spillway_router.proxy.entry.frontend.LINGER_S", 0.05)
    async with pair(more="limits: {body_s: 0.05}\n") as (_, _, router), talking(router) as (reader, writer):
        head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
        writer.write(head % path.encode())
        await reader.read()  # until the connection closes


async def test_a_refused_request_whose_body_does_not_come_ends() -> None:
    async with pair(more="limits: {body_s: 0.05}\n") as (_, _, router), talking(router) as (reader, writer):
        writer.write(LINE + b"authorization: Bearer sk-spill-no\r\ncontent-length: 9\r\n\r\n{")
        assert (await answer_of(reader))[0] == 401
        assert await reader.read() == b""


@asynccontextmanager
async def not_reading(router: Router, **fields: object) -> AsyncIterator[socket.socket]:
    """Send a chat request from a socket with a small buffer that nobody reads."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        sock.bind(("127.0.0.2", 0))  # an address whose connections are counted
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (host, int(port)))
        await loop.sock_sendall(sock, post(fields={"messages": MESSAGES, **fields}))
        yield sock


async def bytes_until_end(sock: socket.socket) -> int:
    """Read until the connection has ended, in order or not, and return how much came."""
    size = 0
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.get_running_loop().sock_recv(sock, 65536):
            size += len(part)
    return size


def open_connections(router: Router) -> int:
    """Return how many connections are open of addresses whose connections are counted."""
    state: FrontendState = router.runtime.front.args[0]  # type: ignore[attr-defined]  # it is a partial
    return state.connections.total()


ENDLESS = Answer.stream(delta({"content": "word " * 40})).then(delta({"content": "word " * 4000}))


@pytest.mark.parametrize("local", [True, False])
async def test_a_stream_that_nobody_reads_is_cut_and_settled(local: bool) -> None:
    more = "limits: {write_stall_s: 0.2}\n"
    async with pair(ENDLESS, ENDLESS, more=more) as (engine, other, router):
        upstream = engine if local else other
        async with not_reading(router, stream=True, model="local" if local else "cloud"):
            arrived = await upstream.arrival()
            async with asyncio.timeout(LIMIT_S):
                await arrived.closed.wait()
            await router.until(lambda: not any(router.runtime.board.in_flight().values()))
        (record,) = router.runtime.services.records.recent(9)
        assert (record.status, record.attempts[0].outcome.detail) == (499, "the client left")
        assert [attempt.outcome.kind for attempt in record.attempts] == ["cancelled"]


async def test_a_whole_answer_that_nobody_reads_does_not_keep_its_connection() -> None:
    more = "limits: {write_stall_s: 0.2}\n"
    async with pair(saying("word " * 2_000_000), more=more) as (_, _, router), not_reading(router) as sock:
        async with asyncio.timeout(LIMIT_S):
            await router.until(lambda: open_connections(router) == 1)
            await router.until(lambda: open_connections(router) == 0)
            assert await bytes_until_end(sock) < 10_000_000


async def test_a_slow_reader_that_goes_on_reading_gets_all_of_its_answer() -> None:
    more = "limits: {write_stall_s: 0.3}\n"
    text = "word " * 400_000
    async with pair(saying(text), more=more) as (_, _, router), not_reading(router) as sock:
        loop, size = asyncio.get_running_loop(), 0
        async with asyncio.timeout(LIMIT_S):
            while size < len(text):
                part = await loop.sock_recv(sock, 65536)
                assert part, f"cut after {size} bytes"
                size += len(part)
                await asyncio.sleep(0.01)


async def test_an_address_may_have_so_many_connections_and_no_more() -> None:
    async with pair(saying("hi"), more="limits: {connections_per_address: 2}\n") as (_, _, router):
        host, _, port = router.url.removeprefix("http://").partition(":")

        async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection(host, int(port), local_addr=("127.0.0.2", 0))

        connections = [await opened() for _ in range(2)]
        for reader, writer in connections:
            writer.write(GET + b"\r\n")
            assert (await answer_of(reader))[0] == 200
        reader, writer = await opened()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5\r\n" in head
        writer.close()
        async with talking(router) as (reader, writer):  # from another address
            writer.write(post())
            assert (await answer_of(reader))[0] == 200
        for _, writer in connections:
            writer.close()
        await router.until(lambda: open_connections(router) == 0)
        reader, writer = await opened()
        writer.write(post())
        assert (await answer_of(reader))[0] == 200
        writer.close()


def test_what_an_address_is_counted_under() -> None:
    assert counted_address(("127.0.0.1", 1)) == counted_address(("::1", 1)) == counted_address(None) == ""
    assert counted_address(("::ffff:127.0.0.1", 1)) == ""
    assert counted_address(("192.0.2.7", 1)) == counted_address(("::ffff:192.0.2.7", 1)) == "192.0.2.7"
    assert counted_address(("2001:db8::1", 1)) == counted_address(("2001:db8::2:3", 1)) == "2001:db8::/64"
    assert counted_address(("fe80::1%eth0", 1)) == "fe80::/64"
    counts = ConnectionCounts()
    assert all(counts.enter("192.0.2.7", 0) for _ in range(100))
    assert not counts.enter("192.0.2.7", 100)
    assert counts.enter("192.0.2.8", 100)


async def test_a_key_may_not_take_all_places(tmp_path: Path) -> None:
    more = "limits: {in_flight: 4}\nkeys: {required: true}\n"
    gate = asyncio.Event()
    async with pair(saying("hi").after(gate), more=more, folder=tmp_path) as (engine, _, router):
        one, two = bearer(router, "inference", "one"), bearer(router, "inference", "two")
        held = [asyncio.create_task(router.chat(**one)) for _ in range(2)]
        await router.until(lambda: len(engine.seen) == 2)
        reply = await router.chat(**one)
        assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limited")
        assert reply.headers["retry-after"] == "1"
        held.append(asyncio.create_task(router.chat(**two)))
        await router.until(lambda: len(engine.seen) == 3)
        gate.set()
        assert {(await task).status_code for task in held} == {200}
        assert (await router.chat(**one)).status_code == 200
