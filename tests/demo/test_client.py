"""The demo's client with good and bad answers, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from demo.client import DocumentResult, send
from demo.load import Clients, run_closed, run_open
from demo.product import free_ports
from demo.workload import DocumentJob, arrive, draw

JOB = next(job for job in draw("burst", 0, 50, seed=1) if not job.private and not job.stream)
DECIDED = "x-spillway-decision: local\r\nx-spillway-reason: queue,kv\r\nx-spillway-confidence: 0.995\r\n"


def whole(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"completion_tokens": 9}})
    return _http("200 OK", "application/json", body)


def stream(*events: str) -> bytes:
    return _http("200 OK", "text/event-stream", "".join(f"data: {event}\n\n" for event in events))


def refused(status: str, code: str) -> bytes:
    body = f'{{"error":{{"message":"m","type":"t","param":null,"code":"{code}"}}}}'
    return _http(status, "application/json", body, "retry-after: 0.1\r\n")


def _http(status: str, kind: str, body: str, extra: str = "") -> bytes:
    raw = body.encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n{DECIDED}{extra}\r\n"
    return head.encode() + raw


def delta(text: str, finish: str = "null") -> str:
    quoted = text.replace('"', '\\"')
    return f'{{"choices":[{{"index":0,"delta":{{"content":"{quoted}"}},"finish_reason":{finish}}}]}}'


@asynccontextmanager
async def serving(replies: Sequence[bytes], requests: list[bytes]) -> AsyncIterator[str]:
    """A server that gives one canned reply after the other, the last one for ever, and records the requests."""
    left = list(replies)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = next(
                    int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line
                )
                requests.append(head + await reader.readexactly(size))
                writer.write(left.pop(0) if len(left) > 1 else left[0])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def send_to(job: DocumentJob, *replies: bytes) -> tuple[DocumentResult, list[bytes]]:
    """Send a document to a server that gives these replies; return the result and the requests that arrived."""
    requests: list[bytes] = []
    loop = asyncio.get_running_loop()
    async with serving(replies, requests) as url, Clients(url) as clients:
        result = await send(clients.next(), job, loop.time())
    # httpx leaves the generators of an answer that was not read to its end to the loop.
    await loop.shutdown_asyncgens()
    return result, requests


async def test_whole_answer_is_read_with_its_decision() -> None:
    result, _ = await send_to(JOB, whole(JOB.answer))
    assert (result.fault, result.right, result.decision, result.reasons, result.confidence) == (
        "",
        True,
        "local",
        ("queue", "kv"),
        0.995,
    )
    assert 0 < result.served_s <= result.done_s
    assert result.tokens == 9


async def test_wrong_answer_is_answered_but_not_right() -> None:
    result, _ = await send_to(JOB, whole("{}"))
    assert (result.answered, result.right) == (True, False)


async def test_stream_is_put_together() -> None:
    job, half = replace(JOB, stream=True), len(JOB.answer) // 2
    result, requests = await send_to(
        job, stream(delta(job.answer[:half]), delta(job.answer[half:], '"stop"'), "[DONE]")
    )
    assert (result.fault, result.right) == ("", True)
    assert b'"stream":true' in requests[0]


@pytest.mark.parametrize(
    "events",
    [
        (delta(JOB.answer, '"stop"'),),
        (delta(JOB.answer), "[DONE]"),
        (delta(JOB.answer), '{"error":{"code":"upstream_interrupted"}}'),
        (delta(JOB.answer), "{nonsense"),
    ],
    ids=["no done", "no finish", "error event", "bad json"],
)
async def test_broken_streams_are_faults(events: tuple[str, ...]) -> None:
    result, _ = await send_to(replace(JOB, stream=True), stream(*events))
    assert result.fault
    assert not result.right


async def test_private_document_is_marked_and_sent_again_when_refused() -> None:
    job = replace(JOB, private=True)
    result, requests = await send_to(
        job, refused("503 Service Unavailable", "local_only_unavailable"), whole(job.answer)
    )
    assert (result.fault, result.refusals, len(requests)) == ("", 1, 2)
    assert all(b"x-spillway-privacy: local-only" in request.lower() for request in requests)


async def test_other_documents_are_not_sent_again() -> None:
    result, requests = await send_to(JOB, refused("503 Service Unavailable", "overloaded"), whole(JOB.answer))
    assert (result.fault, len(requests)) == ("503 overloaded", 1)


async def test_dead_router_is_a_fault_not_a_crash() -> None:
    async with Clients(f"http://127.0.0.1:{free_ports(1)[0]}") as clients:
        result = await send(clients.next(), JOB, asyncio.get_running_loop().time())
    assert "ConnectError" in result.fault


async def test_open_and_closed_load_give_every_result_in_order() -> None:
    jobs = arrive([replace(JOB, number=number) for number in range(40)], 400.0, seed=1)

    counts: dict[str, int] = {}
    async with serving([whole(JOB.answer)], []) as url, Clients(url) as clients:
        opened = await run_open(clients, jobs, counts.update)
        closed = await run_closed(clients, jobs, 4, lambda _: None)
    assert [r.job.number for r in opened] == [r.job.number for r in closed] == list(range(40))
    assert (counts["sent"], counts["done"], counts["local"]) == (40, 40, 40)
