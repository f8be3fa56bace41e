"""A head that comes again is read as a parser would read it."""

from __future__ import annotations

import asyncio
import gc

import pytest
from tests.proxy.entry.helpers import CHAT, answer_of, post, saying, talking

from spillway_router.proxy.entry.frontend import FrontendConnection
from spillway_router.proxy.entry.known_head import KnownHead, known_head
from spillway_router.testing.harness import pair

HEADERS = {"host": "a", "content-length": "2", "accept": "*/*"}
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nContent-Length: 2\r\naccept: */*\r\n\r\n{}"


def kept(data: bytes = REQUEST, headers: dict[str, str] | None = None, count: int = 3) -> KnownHead | None:
    return known_head(data, "chat", HEADERS if headers is None else headers, count)


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 10_000, b"\r\n\r\n"])
def test_a_head_is_known_again_with_a_body_of_another_length(body: bytes) -> None:
    head = kept()
    assert head is not None
    again = REQUEST.replace(b": 2", b": %d" % len(body)).removesuffix(b"{}") + body
    assert again[head.body_start(again) :] == body
    assert head.headers(again) == HEADERS | {"content-length": str(len(body))}
    assert head.headers(REQUEST) == HEADERS, "the headers of one request are not those of the next"


@pytest.mark.parametrize(
    "other",
    [
        REQUEST[:-1],
        REQUEST + b"P",
        REQUEST[:40],
        REQUEST.replace(b"host: a", b"host: b"),
        REQUEST.replace(b"*/*", b"*/x"),
        REQUEST.replace(b": 2", b": +2"),
        REQUEST.replace(b": 2", b": 2 "),
        REQUEST.replace(b": 2", b": 0x2"),
        REQUEST.replace(b": 2", b": "),
        REQUEST.replace(b": 2", b": 2\r\nx: y"),
        REQUEST.replace(b": 2\r\n", b": 2\n"),
        REQUEST.replace(b": 2", b": 1"),
        REQUEST.replace(b": 2", b": 0000000002"),
        b"",
    ],
)
def test_whatever_is_not_one_whole_request_with_this_head_is_left_to_the_parser(other: bytes) -> None:
    head = kept()
    assert head is not None
    assert head.body_start(other) == 0


@pytest.mark.parametrize(
    ("data", "headers", "count"),
    [
        (REQUEST + REQUEST, None, 3),
        (b"\r\n" + REQUEST, None, 3),
        (REQUEST.replace(b"*/*\r\n", b"*/*\r\n x\r\n"), None, 3),
        (REQUEST.replace(b"*/*\r\n", b"*/*\n"), None, 3),
        (REQUEST.replace(b"accept: */*", b"content-length: 2"), None, 3),
        (REQUEST.replace(b": 2", b": 2 "), None, 3),
        (REQUEST, {**HEADERS, "transfer-encoding": "chunked"}, 3),
        (REQUEST, {**HEADERS, "upgrade": "h2c"}, 3),
        (REQUEST, {**HEADERS, "expect": "100-continue"}, 3),
        (REQUEST, None, 4),
        (REQUEST[:-2], None, 3),
    ],
)
def test_a_head_that_may_be_read_otherwise_is_not_kept(data: bytes, headers: dict[str, str] | None, count: int) -> None:
    assert kept(data, headers, count) is None


def connection() -> FrontendConnection:
    (one,) = [item for item in gc.get_objects() if isinstance(item, FrontendConnection) and item.transport]
    return one


def asking(text: str, more: bytes = b"") -> bytes:
    return post(fields={"messages": [{"role": "user", "content": text}]}, more=more)


async def test_every_request_of_a_connection_reaches_the_engine_with_its_own_body() -> None:
    """Alike, in parts, two at once, with another head and without a key: however it comes."""
    async with pair(saying("hi")) as (engine, _, router), talking(router) as (reader, writer):
        texts = ["one", "two" * 50, "three" * 5000]
        for text in texts:
            writer.write(asking(text))
            assert (await answer_of(reader))[0] == 200
        assert connection().unlike == 0, "the second and the third request had the head of the first"
        for text in ("four", "five"):
            request = asking(text)
            writer.write(request[:-20])
            await writer.drain()
            writer.write(request[-20:])
            assert (await answer_of(reader))[0] == 200
        writer.write(asking("six") + asking("seven"))
        assert [(await answer_of(reader))[0] for _ in range(2)] == [200, 200]
        writer.write(asking("eight", b"x-request-tag: s\r\n"))
        assert (await answer_of(reader))[0] == 200
        writer.write(asking("nine", b"authorization: Bearer sk-spill-wrong\r\n"))
        assert (await answer_of(reader))[0] == 401
        writer.write(asking("ten", b"connection: close\r\n"))
        assert (await answer_of(reader))[0] == 200
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        received = [request.json["messages"][0]["content"] for request in engine.seen]
        assert received == [*texts, "four", "five", "six", "seven", "eight", "ten"]


async def test_a_known_head_is_judged_anew_each_time() -> None:
    limit = "limits: {body_mb: 0.001}\n"
    async with pair(saying("hi"), more=limit) as (engine, _, router), talking(router) as (reader, writer):
        statuses = []
        for text in ("one", "two", "three" * 500):
            writer.write(asking(text))
            statuses.append((await answer_of(reader))[0])
        assert statuses == [200, 200, 413]
        assert len(engine.seen) == 2


async def test_a_target_with_a_query_is_parsed_each_time_as_its_query_is_judged_too() -> None:
    async with pair(saying("hi")) as (_, _, router), talking(router) as (reader, writer):
        for path, kept_head in ((CHAT, True), (CHAT + b"?a=1", False), (CHAT + b"?a=1", False)):
            writer.write(post(path))
            assert (await answer_of(reader))[0] == 200
            assert (connection().latest_head is not None) == kept_head
