"""Memory that request bodies take: bounded in all and for each key, and free when the request ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.control.helpers import bearer
from tests.proxy.entry.helpers import CHAT, answer_of, post, saying, talking

from spillway_router.config.memory_limit import memory_left
from spillway_router.proxy.entry.frontend import IncomingRequest
from spillway_router.proxy.request.body_memory import BodyMemory
from spillway_router.proxy.request.large_body import LargeBody, Reading
from spillway_router.testing import Answer
from spillway_router.testing.harness import LIMIT_S, Router, pair

TIGHT = "limits: {body_mb: 0.5, bodies_mb: 1}\n"
LENGTH = 400_000
HEAD = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" % CHAT


def head(more: bytes = b"") -> bytes:
    """Return the head of a request whose body is large."""
    return HEAD + more + b"content-length: %d\r\n\r\n" % LENGTH


async def refused(router: Router, request: bytes) -> bool:
    """Send a request without its body, and return whether it is refused for want of memory before the body comes."""
    async with talking(router) as (reader, writer):
        writer.write(request)
        status, body = await answer_of(reader)
        return (status, json.loads(body)["error"]["code"]) == (503, "overloaded")


async def test_a_body_without_room_is_refused_before_it_is_read() -> None:
    async with pair(saying("hi"), more=TIGHT) as (engine, _, router):
        async with talking(router) as (_, one), talking(router) as (_, two):
            for writer in (one, two):
                writer.write(head())
                await writer.drain()
            await router.until(lambda: True)
            assert (await router.chat()).status_code == 200  # small bodies have room
            assert await refused(router, head())
        engine.seen.clear()
        async with asyncio.timeout(20):
            while await refused_whole(router):
                pass
        assert len(engine.seen) == 1


async def refused_whole(router: Router) -> bool:
    """Send a whole large request; return whether there was no room for it."""
    async with talking(router) as (reader, writer):
        writer.write(post(fields={"user": "x" * LENGTH}))
        return (await answer_of(reader))[0] == 503


async def test_a_chunked_body_counts_as_it_comes() -> None:
    chunk = b"%x\r\n%b\r\n" % (LENGTH, b" " * LENGTH)
    async with pair(saying("hi"), more=TIGHT) as (engine, _, router):
        async with talking(router) as (_, one), talking(router) as (_, two):
            for writer in (one, two):
                writer.write(head())
                await writer.drain()
            assert (await router.chat()).status_code == 200
            engine.seen.clear()
            assert await refused(router, HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk)
        assert not engine.seen


async def test_a_refusal_reaches_a_client_that_goes_on_sending() -> None:
    size = 12_000_000
    request = HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % size
    more = "limits: {body_mb: 12, bodies_mb: 12}\n"
    async with (
        pair(saying("hi"), more=more) as (_, _, router),
        talking(router) as (_, first),
        talking(router) as (reader, writer),
    ):
        first.write(request)
        await router.until(lambda: router.runtime.services.bodies.held == size)
        writer.write(request)
        for _ in range(12):
            writer.write(b" " * (size // 12))
            await writer.drain()
        status, body = await answer_of(reader)
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        assert await reader.read() == b""


CONTROL_ROUTES = [b"/v1/route/explain", b"/v1/documents/extract", b"/v1/feedback", b"/v1/reviews/rev_1"]


@pytest.mark.parametrize("path", CONTROL_ROUTES)
async def test_bodies_of_control_routes_count_too(path: bytes) -> None:
    async with pair(saying("hi"), more=TIGHT) as (_, _, router):
        # One key may not take all of the memory.
        keys = [bearer(router, "admin")["authorization"].encode() for _ in range(3)]
        control, also, third = (head(b"authorization: %b\r\n" % key).replace(CHAT, path) for key in keys)
        memory = router.runtime.services.bodies
        async with talking(router) as (_, one), talking(router) as (_, two):
            for writer, request in ((one, control), (two, also)):
                writer.write(request)
                await writer.drain()
            await router.until(lambda: memory.held == 2 * LENGTH)
            assert await refused(router, head())
            assert await refused(router, third)
        await router.until(lambda: memory.held == 0)


async def test_a_control_body_that_drips_is_given_up() -> None:
    async with pair(more="limits: {body_s: 0.1}\n") as (_, _, router), talking(router) as (reader, writer):
        writer.write(head().replace(CHAT, b"/v1/route/explain") + b" ")
        status, body = await answer_of(reader)
        assert (status, json.loads(body)["error"]["code"]) == (408, "invalid_request")
        assert router.runtime.services.bodies.held == 0


async def test_a_large_document_is_read_whole() -> None:
    text = "x" * LENGTH
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    more = "limits: {body_mb: 1}\ndocuments: {max_chars: 500000}\n"
    async with pair(saying("hi"), more=more) as (engine, _, router):
        await router.post({"text": text, "schema": schema}, "/v1/documents/extract")
        assert text in engine.seen[0].body.decode()


async def test_a_key_may_take_half(tmp_path: Path) -> None:
    more = "limits: {body_mb: 0.5, bodies_mb: 1}\nkeys: {required: true}\n"
    async with pair(saying("hi"), more=more, folder=tmp_path) as (_, _, router), talking(router) as (_, writer):
        ann, bob = (b"x-api-key: %b\r\n" % _token(router, name) for name in ("ann", "bob"))
        writer.write(head(ann))
        await writer.drain()
        assert (await router.chat(None, **bearer(router, "inference", "cy"))).status_code == 200
        assert await refused(router, head(ann))
        async with talking(router) as (reader, other):
            request = post(fields={"user": "x" * LENGTH}, more=bob)
            other.write(request)
            assert (await answer_of(reader))[0] == 200


def _token(router: Router, name: str) -> bytes:
    return bearer(router, "inference", name)["authorization"].removeprefix("Bearer ").encode()


def test_what_was_taken_is_given_back() -> None:
    memory = BodyMemory()
    assert memory.take("k", 40, 100, 30) is None
    assert memory.take("k", 20, 100, 30) is not None
    assert memory.take("", 60, 100, 30) is None
    assert memory.take("other", 1, 100, 30) is not None
    memory.give_back("", 60)
    memory.give_back("k", 40)
    assert memory.held == 0
    assert memory.take("k", 30, 10, 30) is None  # the largest body always has room in an idle router


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leaves", [False, True])
async def test_nothing_of_a_request_waits_for_the_garbage_collector(stream: bool, leaves: bool) -> None:
    answer = Answer(silent=True, end="hang") if leaves else saying("hi")
    async with pair(answer) as (engine, _, router):
        for _ in range(5):
            async with talking(router) as (reader, writer):
                writer.write(post(fields={"user": "x" * LENGTH, "stream": stream and leaves}))
                await engine.arrival()
                if not leaves:
                    await answer_of(reader)
        del reader, writer
        await router.until(lambda: not any(router.runtime.board.in_flight().values()))
        await router.until(lambda: not alive(IncomingRequest))


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("where", ["while it is read", "while it is looked at"])
async def test_a_request_that_was_left_is_freed_without_the_garbage_collector(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled task holds its frames, and they what was parsed of a body: hundreds of MB of a few clients."""
    looking, looked = threading.Event(), threading.Event()

    def look(*_: object) -> None:
        looking.set()
        looked.wait(LIMIT_S)

    if where == "while it is looked at":
        monkeypatch.setattr("spillway_router.proxy.exchange.exchange.read_facts", look)
    texts = ["x" * 1000] * (20_000 if where == "while it is read" else 300)
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": text} for text in texts]}).encode()
    begun = Reading.steps
    reading = asyncio.Event()

    def steps(self: Reading) -> Iterator[None]:
        reading.set()
        return begun(self)

    monkeypatch.setattr(Reading, "steps", steps)
    async with pair(Answer(silent=True, end="hang")) as (_, _, router):
        async with talking(router) as (reader, writer):
            writer.write(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
            if where == "while it is read":
                await reading.wait()
            else:
                await asyncio.to_thread(looking.wait, LIMIT_S)
        del reader, writer
        await router.until(lambda: all(one.disconnected for one in alive(IncomingRequest)))
        looked.set()
        kept = (IncomingRequest, LargeBody, Reading)
        await router.until(lambda: not alive(*kept))


def alive(*kinds: type) -> list[Any]:
    """Return the objects of these types that are in memory."""
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


def test_the_memory_that_is_left_follows_the_container(tmp_path: Path) -> None:
    group, machine = tmp_path / "sys/fs/cgroup/a/b", tmp_path / "proc/self"
    old = tmp_path / "sys/fs/cgroup/memory/c"
    for folder in (group, machine, old):
        folder.mkdir(parents=True)
    (machine / "statm").write_text("1000 100 0 0 0 0 0\n")
    (machine / "cgroup").write_text("4:cpu,memory:/c\n0::/a/b\n")
    free = memory_left(tmp_path)
    assert free > 2**26
    (group / "memory.max").write_text("max\n")
    assert memory_left(tmp_path) == free
    (group.parent / "memory.max").write_text(f"{2**25}\n")
    assert memory_left(tmp_path) == 2**25 - 100 * 4096
    (old / "memory.limit_in_bytes").write_text(f"{2**24}\n")
    assert memory_left(tmp_path) == 2**24 - 100 * 4096
    (group / "memory.max").write_text("1000\n")
    assert memory_left(tmp_path) == 0


async def test_the_loop_has_a_turn_after_each_part_of_a_large_body() -> None:
    size = 8 << 20
    async with pair(saying("hi")) as (_, _, router):
        host, _, port = router.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.setblocking(False)
            sent = client.send(HEAD + b"content-length: %d\r\n\r\n" % size)
            with contextlib.suppress(BlockingIOError):  # the system holds some megabytes before the loop runs again
                while sent < size:
                    sent += client.send(b" " * (64 << 10))
            arrived, steps, body = 0, list[int](), None
            async with asyncio.timeout(LIMIT_S):
                while arrived < sent - (512 << 10):
                    await asyncio.sleep(0)
                    if body is None:
                        body = next((one for one in gc.get_objects() if isinstance(one, IncomingRequest)), None)
                    now = 0 if body is None else body.size
                    steps.append(now - arrived)
                    arrived = now
    assert sent > 1 << 20
    assert max(steps) <= 512 << 10
