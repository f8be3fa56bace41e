"""What upstreams that fail before the first byte cost: failover, calls per request, recovery after a repair."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from evidence.failures import ERRORS, FAILURES, FailingUpstream
from evidence.results import Measurement
from spillway_router.testing.harness import MESSAGES, PRICE, Router, routing, settings

FAILOVER, AMPLIFICATION, RECOVERY = (
    "failover.before_first_byte",
    "retry.amplification",
    "wire.recovery_after_repair",
)
AT_ONCE = (20, 120, 500)
"""Requests in flight when the first backend dies."""
LONG_OUTAGE_S = 100.0
SHORT_OUTAGE_S = 3.0
ASKED_PER_S = 20
CLIENT_PATIENCE_S = 30.0
_MORE = "limits: {first_event_s: 20}\nslo: {ttft_ms: 60000, tpot_ms: 10000}\n"

Answered = tuple[int, bytes]


def failover(
    say: Callable[[str], None], failures: tuple[str, ...] = FAILURES, at_once: tuple[int, ...] = AT_ONCE
) -> dict[str, Measurement]:
    """Measure the share of requests that are answered when the first backend dies with many in flight and a healthy
    one stands behind it."""
    trials = [
        (failure, local, stream, count)
        for failure in failures
        for local in (True, False)
        for stream in (False, True)
        for count in at_once
        if local or failure != "hang"  # only an engine has a watcher that takes it out
    ]
    replies: Counter[str] = Counter()
    for failure, local, stream, count in trials:
        here = _run(_dies(failure, local=local, stream=stream, count=count))
        if here["answered"] < count + LATER:
            say(f"  {failure}, {'engine' if local else 'cloud'}, stream {stream}, {count}: {dict(here)}")
        replies += here
    asked = sum(count + LATER for _, _, _, count in trials)
    details = {"trials": len(trials), "replies": dict(replies), "failures": list(failures), "in_flight": list(at_once)}
    return {FAILOVER: Measurement(replies["answered"] / asked, asked, details)}


LATER = 20
"""Requests that are sent after the backend died."""


async def _dies(failure: str, *, local: bool, stream: bool, count: int) -> Counter[str]:
    first = FailingUpstream("hold", engine=local)
    async with first, FailingUpstream() as healthy, _routed(_first(first, local=local), _cloud(healthy)) as router:
        tasks = [asyncio.create_task(_ask(router, stream=stream)) for _ in range(count)]
        await router.until(lambda: len(first.held) >= count)
        await first.fail(failure)
        replies = list(await asyncio.gather(*tasks))
        replies += await asyncio.gather(*(_ask(router, stream=stream) for _ in range(LATER)))
    return Counter("answered" if _is_whole(reply, stream=stream) else str(reply[0]) for reply in replies)


def amplification(
    say: Callable[[str], None], seconds: float = 8.0, each_time: Callable[[Router], None] = lambda _: None
) -> dict[str, Measurement]:
    """Measure the most upstream calls per request while every upstream fails, over the ways to fail."""
    counts = _run(_all_ways_fail(("reset", "end", "half a head", *ERRORS), seconds, each_time))
    for failure, (calls, requests) in counts.items():
        say(f"  {failure}: {calls} calls for {requests} requests")
    by_failure = {failure: round(calls / requests, 3) for failure, (calls, requests) in counts.items()}
    asked = sum(requests for _, requests in counts.values())
    return {AMPLIFICATION: Measurement(max(by_failure.values()), asked, {"calls_per_request": by_failure})}


async def _all_ways_fail(
    failures: Sequence[str], seconds: float, each_time: Callable[[Router], None]
) -> dict[str, tuple[int, int]]:
    """Let upstreams fail in all ways at the same time, each with a router of its own: they mostly wait."""
    counts = await asyncio.gather(*(_all_fail(failure, seconds, each_time) for failure in failures))
    return dict(zip(failures, counts, strict=True))


async def _all_fail(failure: str, seconds: float, each_time: Callable[[Router], None]) -> tuple[int, int]:
    async with (
        FailingUpstream(failure) as one,
        FailingUpstream(failure) as two,
        _routed(_cloud(one, "one"), _cloud(two, "two")) as router,
    ):
        tasks: list[asyncio.Task[Answered]] = []
        async for _ in _ticks(seconds):
            each_time(router)
            tasks.append(asyncio.create_task(_ask(router, stream=len(tasks) % 2 == 0)))
        await asyncio.gather(*tasks)
        return one.calls + two.calls, len(tasks)


def recovery(
    say: Callable[[str], None], failures: tuple[str, ...] = FAILURES, long_s: float = LONG_OUTAGE_S
) -> dict[str, Measurement]:
    """Measure the longest time from a repair to the first answer of the repaired backend, over the ways to fail."""
    short, long = _run(_after_outages(failures, (SHORT_OUTAGE_S, long_s)))
    seconds = short | {f"{failure}, {long_s:g} s": value for failure, value in long.items()}
    worst = max(seconds.values())
    say(f"  {seconds}")
    return {RECOVERY: Measurement(round(worst, 2), len(seconds), {"seconds": seconds, "requests_per_s": ASKED_PER_S})}


async def _after_outages(failures: tuple[str, ...], outages_s: Sequence[float]) -> list[dict[str, float]]:
    """Measure after outages of these lengths at the same time, each with routers of its own: they mostly wait."""
    return await asyncio.gather(*(_recoveries(failures, outage_s) for outage_s in outages_s))


async def _recoveries(failures: tuple[str, ...], outage_s: float) -> dict[str, float]:
    values = await asyncio.gather(*(_recovers(failure, outage_s) for failure in failures))
    return {failure: round(value, 2) for failure, value in zip(failures, values, strict=True)}


async def _recovers(failure: str, outage_s: float) -> float:
    """Return the seconds from the repair of the only backend to the first 200."""
    async with FailingUpstream() as upstream, _routed(_cloud(upstream, "only")) as router:
        await upstream.fail(failure)
        repaired_s = answered_s = 0.0
        tasks: set[asyncio.Task[None]] = set()

        async def ask() -> None:
            nonlocal answered_s
            reply = await _ask(router, stream=False, patience_s=4.0)
            if _is_whole(reply, stream=False) and repaired_s and not answered_s:
                answered_s = time.monotonic()

        started_s = time.monotonic()
        async for _ in _ticks(outage_s + 60.0, per_s=5 if outage_s > 20 else ASKED_PER_S):
            if not repaired_s and time.monotonic() - started_s > outage_s:
                await upstream.repair()
                repaired_s = time.monotonic()
            if answered_s:
                break
            task = asyncio.create_task(ask())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return answered_s - repaired_s if answered_s else 60.0


async def _ticks(seconds: float, per_s: int = ASKED_PER_S) -> AsyncIterator[int]:
    """Yield at a steady rate."""
    started_s = time.monotonic()
    for number in range(int(seconds * per_s)):
        await asyncio.sleep(max(0.0, started_s + number / per_s - time.monotonic()))
        yield number


def _first(upstream: FailingUpstream, *, local: bool) -> str:
    if not local:
        return _cloud(upstream, "first")
    speed = "max_sequences: 1000, prefill_tokens_per_s: 1000000"
    return f"{{name: first, provider: vllm, local: true, model: m, base_url: '{upstream.url}', {speed}}}"


def _cloud(upstream: FailingUpstream, name: str = "healthy") -> str:
    return f"{{name: {name}, provider: generic, model: m, api_key: k, base_url: '{upstream.url}', price: {PRICE}}}"


@asynccontextmanager
async def _routed(*backends: str) -> AsyncIterator[Router]:
    async with routing(settings(*backends, more=_MORE)) as router:
        yield router


async def _ask(router: Router, *, stream: bool, patience_s: float = CLIENT_PATIENCE_S) -> Answered:
    """Send one request on a connection of its own; return status and body, status 0 if the client gave up."""
    host, _, port = router.url.removeprefix("http://").partition(":")
    body = json.dumps({"model": "auto", "messages": MESSAGES, "max_tokens": 4, "stream": stream}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    head += b"content-type: application/json\r\n"
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
            answer = await reader.read()
    except (TimeoutError, OSError):
        return 0, b""
    finally:
        if writer is not None:
            writer.close()
    start, _, rest = answer.partition(b"\r\n\r\n")
    return (int(start.split(b" ")[1]) if b" " in start else 0), rest


def _is_whole(reply: Answered, *, stream: bool) -> bool:
    return reply[0] == 200 and b"whole" in reply[1] and (not stream or b"[DONE]" in reply[1])


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    logging.disable(logging.WARNING)  # thousands of failures
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    finally:
        logging.disable(logging.NOTSET)
