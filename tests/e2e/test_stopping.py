"""How a router stops: it says so, serves on for a while, lets answers end, and does not wait at a second signal."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import httpx

from spillway_router.testing.harness import MESSAGES
from spillway_router.testing.processes import await_ready, running, write
from spillway_router.testing.streams import chat
from spillway_router.testing.upstream import Answer, FaultUpstream

WAIT_S = 30
BODY = {"model": "auto", "messages": MESSAGES}
PRICE = {"input_per_million": "0.15", "output_per_million": "0.60"}
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def config(folder: Path, upstream: FaultUpstream, **limits: float) -> Path:
    backend = {"name": "local", "provider": "ollama", "local": True, "model": "m", "base_url": upstream.url}
    return write(folder, {"backends": [backend], "limits": limits})


async def ready(client: httpx.AsyncClient) -> tuple[int, Any]:
    reply = await client.get("/ready")
    return reply.status_code, reply.json()["ready"]


async def test_it_says_that_it_leaves_and_serves_on_meanwhile(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json(WHOLE)) as upstream:
        with running("route", config(tmp_path, upstream, stop_unready_s=3)) as process:
            await asyncio.to_thread(await_ready, process.url)
            async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as client:
                assert await ready(client) == (200, True)
                process.process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(WAIT_S):
                    while (state := await ready(client))[0] == 200:
                        await asyncio.sleep(0.01)
                assert state == (503, False)
                assert (await client.get("/ready")).headers["connection"] == "close", "or its next request is lost"
                async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as other:
                    last = await other.post("/v1/chat/completions", json=BODY)
                    assert (last.status_code, last.headers["connection"]) == (200, "close")
            assert await asyncio.to_thread(process.ended) == 0


async def test_an_answer_in_progress_ends_whole_and_a_second_signal_does_not_wait_for_it(tmp_path: Path) -> None:
    for second in (False, True):
        gate, folder = asyncio.Event(), tmp_path / str(second)
        folder.mkdir()
        async with FaultUpstream(Answer.json(WHOLE).after(gate)) as upstream:
            with running("route", config(folder, upstream, stop_s=600)) as process:
                await asyncio.to_thread(await_ready, process.url)
                async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as client:
                    answer = asyncio.create_task(client.post("/v1/chat/completions", json=BODY))
                    await asyncio.wait_for(upstream.arrivals.get(), WAIT_S)
                    process.process.send_signal(signal.SIGTERM)
                    if second:
                        await asyncio.sleep(0)
                        process.process.send_signal(signal.SIGINT)
                        assert await asyncio.to_thread(process.ended) == 0
                        await asyncio.gather(answer, return_exceptions=True)
                    else:
                        gate.set()
                        reply = await answer
                        assert reply.status_code == 200
                        assert await asyncio.to_thread(process.ended) == 0


async def test_a_machine_that_is_about_to_go_answers_by_the_cloud_and_private_requests_itself(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json(WHOLE)) as engine, FaultUpstream(Answer.json(WHOLE)) as cloud:
        backends = [
            {"name": "local", "provider": "ollama", "local": True, "model": "m", "base_url": engine.url},
            {"name": "far", "provider": "generic", "model": "m", "base_url": cloud.url, "api_key": "k", "price": PRICE},
        ]
        file = write(tmp_path, {"backends": backends, "aliases": {"auto": {"chain": ["local", "far"]}}})
        with running("route", file) as process:
            await asyncio.to_thread(await_ready, process.url)
            async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as client:
                before = await client.post("/v1/chat/completions", json=BODY)
                process.process.send_signal(signal.SIGUSR1)
                async with asyncio.timeout(WAIT_S):
                    while (state := await ready(client))[0] == 200:
                        await asyncio.sleep(0.01)
                after = await client.post("/v1/chat/completions", json=BODY)
                private = await client.post(
                    "/v1/chat/completions", json=BODY, headers={"x-spillway-privacy": "local-only"}
                )
            assert (state[1], process.process.poll()) == (False, None), "it stays up"
            assert [reply.status_code for reply in (before, after, private)] == [200, 200, 200], (
                after.text + private.text
            )
            names = [reply.headers["x-spillway-backend"] for reply in (before, after, private)]
            assert names == ["local", "far", "local"]
            assert "leaving" in after.headers["x-spillway-reason"]
            process.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.ended) == 0


async def test_a_request_on_a_connection_that_nobody_said_would_close_is_answered(tmp_path: Path) -> None:
    """The head of a stream that began before the signal promised another answer on this connection."""
    gate = asyncio.Event()
    stream = chat("yes")
    paused = Answer.stream(stream.body).pausing(stream.end_of(1), gate)
    async with FaultUpstream(paused) as upstream:
        with running("route", config(tmp_path, upstream)) as process:
            await asyncio.to_thread(await_ready, process.url)
            host, _, port = process.url.removeprefix("http://").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            async with asyncio.timeout(WAIT_S):
                writer.write(request({**BODY, "stream": True}))
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"connection: close" not in head
                process.process.send_signal(signal.SIGTERM)
                while is_listening(host, int(port)):
                    await asyncio.sleep(0.01)
                upstream.answer = Answer.json(WHOLE)
                gate.set()
                await reader.readuntil(b"0\r\n\r\n")
                writer.write(request(BODY))
                reply = await reader.read()
            assert reply.startswith(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
            assert b'"yes"' in reply
            writer.close()
            assert await asyncio.to_thread(process.ended) == 0


def request(body: dict[str, Any]) -> bytes:
    """A chat request as bytes."""
    content = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(content) + content


def is_listening(host: str, port: int) -> bool:
    """Whether new connections are taken."""
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0
