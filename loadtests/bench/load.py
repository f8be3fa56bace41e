"""A load generator that costs little CPU time and checks every answer.

    python -m loadtests.bench.load --port 8080 --scenario ns32 [--key KEY] [--quick]      # prints JSON

It uses bare asyncio.Protocol and httptools, so that one core carries generator and stub while another core carries the
system under test. Connections are kept alive; a connection that the server closes between answers is opened again and
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import cast

import httptools
import orjson
import uvloop

from loadtests.bench.scenarios import SCENARIOS, Scenario, body
from loadtests.bench.verify import check_stream, check_whole

ANSWER_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Where the load goes. `key` is sent as a bearer token; systems without keys ignore it."""

    port: int
    key: str = ""
    model: str = "demo"
    path: str = "/v1/chat/completions"
    host: str = "127.0.0.1"

    def head(self, length: int) -> bytes:
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            "content-type: application/json",
            "accept: */*",
            "user-agent: spillway-bench",
            f"content-length: {length}",
        ]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(slots=True)
class LoadResult:
    """What a load observed. Times are in seconds; `peak` is the largest number of answers under way at one time."""

    scenario: str
    completed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    reopened: int = 0
    wall_s: float = 0.0
    peak: int = 0
    median_s: float = 0.0
    p99_s: float = 0.0
    backends: dict[str, int] = field(default_factory=dict)
    decisions: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


@dataclass(slots=True)
class ReceivedAnswer:
    """One answer as it came from the connection."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: list[bytes] = field(default_factory=list)


class ClientConnection(asyncio.Protocol):
    """One connection. `ask()` sends a request; `done` is called with the answer, or with None if
    the connection broke.
    """

    def __init__(self, done: Callable[[ReceivedAnswer | None], None]) -> None:
        self._done = done
        self._parser = httptools.HttpResponseParser(self)
        self._answer = ReceivedAnswer()
        self._busy = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't inherit from asyncio's.
        self.transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> None:
        """Send one request; the previous one must have been answered."""
        if self.transport is None:
            self._done(None)
            return
        self._answer = ReceivedAnswer()
        self._busy = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self.transport is not None:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.transport = None
        if self._busy:
            self._busy = False
            self._done(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower.startswith(b"x-spillway-"):
            self._answer.headers[lower] = value

    def on_body(self, data: bytes) -> None:
        self._answer.body.append(data)

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        # A parser serves one message: some servers send trailing bytes that a used parser would reject.
        self._parser = httptools.HttpResponseParser(self)
        if not keep and self.transport is not None:
            self.transport.close()
            self.transport = None
        self._busy = False
        self._done(self._answer)


class LoadGenerator:
    """Runs one scenario against one target."""

    def __init__(self, scenario: Scenario, target: LoadTarget) -> None:
        self._scenario = scenario
        self._target = target
        self._requests = [self._request(number) for number in range(101 if scenario.stream else 1)]
        self._sent = 0
        self._under_way = 0
        self._errors: Counter[str] = Counter()
        self._durations: list[float] = []
        self._backends: Counter[str] = Counter()
        self._decisions: Counter[str] = Counter()
        self.result = LoadResult(scenario.name)

    def _request(self, number: int) -> bytes:
        content = body(self._scenario, number, self._target.model)
        return self._target.head(len(content)) + content

    async def run(self) -> LoadResult:
        start = time.monotonic()
        deadline = start + self._scenario.seconds
        await asyncio.gather(*(self._worker(deadline) for _ in range(self._scenario.connections)))
        result = self.result
        result.wall_s = time.monotonic() - start
        result.errors = dict(self._errors)
        result.backends, result.decisions = dict(self._backends), dict(self._decisions)
        ordered = sorted(self._durations)
        if ordered:
            result.median_s = ordered[len(ordered) // 2]
            result.p99_s = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        return result

    async def _worker(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        connection: ClientConnection | None = None
        waiter: asyncio.Future[ReceivedAnswer | None] = loop.create_future()

        def done(answer: ReceivedAnswer | None) -> None:
            if not waiter.done():
                waiter.set_result(answer)

        while self._sent < self._scenario.count and time.monotonic() < deadline:
            number = self._sent
            self._sent += 1
            if connection is None or connection.transport is None:
                self.result.reopened += connection is not None
                try:
                    async with asyncio.timeout(ANSWER_LIMIT_S):
                        _, connection = await loop.create_connection(
                            lambda: ClientConnection(done), self._target.host, self._target.port
                        )
                except (OSError, TimeoutError):
                    self._errors["can't connect"] += 1
                    await asyncio.sleep(0.05)
                    continue
            waiter = loop.create_future()
            await self._ask(connection, number, waiter)
        if connection is not None and connection.transport is not None:
            connection.transport.close()

    async def _ask(
        self, connection: ClientConnection, number: int, waiter: asyncio.Future[ReceivedAnswer | None]
    ) -> None:
        self._under_way += 1
        self.result.peak = max(self.result.peak, self._under_way)
        started_s = time.monotonic()
        connection.ask(self._requests[number % len(self._requests)])
        try:
            async with asyncio.timeout(ANSWER_LIMIT_S):
                answer = await waiter
        except TimeoutError:
            self._errors[f"no whole answer in {ANSWER_LIMIT_S:.0f} s"] += 1
            if connection.transport is not None:
                connection.transport.abort()
                connection.transport = None
            return
        finally:
            self._under_way -= 1
        self._durations.append(time.monotonic() - started_s)
        self._judge(answer)

    def _judge(self, answer: ReceivedAnswer | None) -> None:
        if answer is None:
            self._errors["connection closed in the answer"] += 1
            return
        content = b"".join(answer.body)
        if self._scenario.stream:
            problem = check_stream(answer.status, content, self._scenario.events)
        else:
            problem = check_whole(answer.status, content)
        if problem:
            self._errors[problem] += 1
            return
        self.result.completed += 1
        if backend := answer.headers.get(b"x-spillway-backend"):
            self._backends[backend.decode()] += 1
        if decision := answer.headers.get(b"x-spillway-decision"):
            self._decisions[decision.decode()] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="LoadGenerator generator for benchmarks.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--count", type=int, help="at most so many requests")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    scenario = SCENARIOS[options.scenario]
    if options.quick:
        scenario = scenario.quick()
    if options.count is not None:
        scenario = replace(scenario, count=options.count)
    target = LoadTarget(port=options.port, key=options.key, model=options.model)
    result = uvloop.run(LoadGenerator(scenario, target).run())
    sys.stdout.write(orjson.dumps(asdict(result)).decode() + "\n")


if __name__ == "__main__":
    main()
