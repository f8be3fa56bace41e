"""What upstreams send although nobody asked for it: compressed answers, byte order marks, a second answer, headers
without end."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from tests.http_client.server import Server, call, pooled

from spillway_router.http_client.connection import ConnectionBrokenError, PendingCall, TooLargeError
from spillway_router.http_client.pool import Pool
from spillway_router.testing.harness import LIMIT_S

TEXT = b'{"a": "' + b"hello " * 5 + b'"}'
CODINGS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "GZIP": gzip.compress, "deflate": zlib.compress}


def answer(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in (*headers, f"content-length: {len(body)}"))
    return f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body


async def streamed(pool: Pool) -> bytes:
    """Read an answer as a stream: its first bytes one read at a time, the rest as the socket brings it."""
    response = await pool.send(pool.head("/x", 0, private=False), b"", LIMIT_S, PendingCall())
    parts = [await response.read()]
    try:
        while await response.stream_to(lambda part: not parts.append(part)):
            pass
    finally:
        response.close()
    return b"".join(parts)


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_compressed_answer_is_decoded_whole_and_as_a_stream(coding: str) -> None:
    async with pooled(Server(answer(CODINGS[coding](TEXT), f"content-encoding: {coding}"))) as pool:
        assert await call(pool) == TEXT
        assert await streamed(pool) == TEXT


async def test_a_large_compressed_answer_is_decoded_however_it_arrives() -> None:
    text = bytes(random.Random(1).choices(b"0123456789abcdef", k=3_000_000))
    async with pooled(Server(answer(gzip.compress(text, 1), "content-encoding: gzip"))) as pool:
        whole = await pool.call(pool.head("/x", 0, private=False), b"", LIMIT_S, 4_000_000, PendingCall())
        assert whole.body == text
        assert await streamed(pool) == text


@pytest.mark.parametrize("label", ["identity", "utf-8", "none", ""])
async def test_a_label_that_is_no_compression_changes_nothing(label: str) -> None:
    async with pooled(Server(answer(TEXT, f"content-encoding: {label}"))) as pool:
        assert await call(pool) == TEXT
        assert await streamed(pool) == TEXT


@pytest.mark.parametrize(
    ("body", "reason"),
    [(gzip.compress(TEXT)[:-9], "ends early"), (b"\x1f\x8bno gzip", "malformed"), (TEXT, "malformed")],
    ids=["cut", "damaged", "plain"],
)
async def test_what_can_not_be_decoded_is_a_broken_answer(body: bytes, reason: str) -> None:
    async with pooled(Server(answer(body, "content-encoding: gzip"))) as pool:
        with pytest.raises(ConnectionBrokenError, match=reason):
            await call(pool)
        with pytest.raises(ConnectionBrokenError, match=reason):
            await streamed(pool)


async def test_a_small_body_can_not_become_a_large_one() -> None:
    async with pooled(Server(answer(gzip.compress(bytes(30_000_000)), "content-encoding: gzip"))) as pool:
        with pytest.raises(TooLargeError, match="larger than 100 bytes"):
            await call(pool)
        with pytest.raises(ConnectionBrokenError, match="grows too much"):
            await streamed(pool)


async def test_a_byte_order_mark_is_not_part_of_the_answer() -> None:
    async with pooled(Server(answer(b"\xef\xbb\xbf" + TEXT))) as pool:
        assert await call(pool) == TEXT


@pytest.mark.parametrize("second", [answer(b"other"), b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", b"garbage"])
async def test_what_follows_an_answer_is_neither_part_of_it_nor_the_next_one(second: bytes) -> None:
    server = Server(answer(TEXT) + second)
    async with pooled(server) as pool:
        for _ in range(3):
            reply = await pool.call(pool.head("/x", 0, private=False), b"", LIMIT_S, 100, PendingCall())
            assert (reply.status, reply.body) == (200, TEXT)
            await server.ended.acquire()  # the connection can't be trusted with another request
        assert await streamed(pool) == TEXT


async def test_headers_without_end_are_named() -> None:
    async with pooled(Server(answer(TEXT, f"x-long: {'a' * 70_000}"))) as pool:
        with pytest.raises(ConnectionBrokenError, match="its headers have more than 64 KiB"):
            await call(pool)
