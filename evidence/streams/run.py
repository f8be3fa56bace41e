"""One process that sends the whole fault matrix through a router and writes down what came out.

    python -m evidence.streams.run OUTPUT.json [--every N] [--again NUMBERS.json]

Whether the router runs compiled depends on the modules that this process finds (builds.py starts one of each). The
router, the upstreams and the client share one event loop and talk over real sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from evidence.streams.client import RecordingClient, Reply
from evidence.streams.faults import CHUNKED, FIRST, SCORED, SECOND, Case, fault_matrix
from evidence.streams.protocols import ANSWERS, request_body
from evidence.streams.upstream import Play, ScriptedUpstream
from spillway_router import compiled
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import Router, cloud, local, routing, settings

PATIENT = "limits: {first_event_s: 30, stall_s: 30}\n"
IMPATIENT = "limits: {first_event_s: 30, stall_s: 1}\n"
LESS_IMPATIENT = "limits: {first_event_s: 30, stall_s: 3}\n"
"""For cases that are sent again: a machine that stood still for a second has not let a stream stall."""
CONFIDENT = PATIENT + "confidence: {threshold: 0.5, escalate_to: [second], hold_tokens: 4}\n"
MORE = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
STALLS_AT_ONCE = 32
STALLS_AGAIN_AT_ONCE = 8
SAY_EVERY = 20_000

# What differs between two requests without being part of the answer.
_PER_REQUEST = (
    "x-request-id",
    "request-id",
    "date",
    "x-spillway-overhead-ms",
    "x-spillway-cost-usd",
    "x-spillway-policy",
)
_LANE = re.compile(r"\b(engine|cloud)\d+\b")
_ID = re.compile(rb"\b[0-9A-HJKMNP-TV-Z]{26}\b")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A reply without what differs between two requests. `body` is Latin-1 text, so that it can stand in JSON."""

    path: str
    status: int
    headers: dict[str, str]
    body: str
    ended: str

    @classmethod
    def of(cls, path: str, reply: Reply) -> Recorded:
        headers = {name: _LANE.sub(r"\1", value) for name, value in reply.headers.items() if name not in _PER_REQUEST}
        body = _LANE.sub(r"\1", _ID.sub(b"ID", reply.body).decode("latin-1"))
        return cls(path, reply.status, headers, body, reply.ended)

    @property
    def digest(self) -> str:
        """Return a short hash of all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


class Matrix:
    """The cases on their way through one router."""

    def __init__(self, numbered: Sequence[Case]) -> None:
        self._cases = numbered
        self.digests: list[str] = [""] * len(numbered)
        self.replies: dict[str, Recorded] = {}
        self.first = ScriptedUpstream(self._broken)
        self.second = ScriptedUpstream(self._whole)

    def _broken(self, number: int, _line: bytes) -> Play:
        case = self._cases[number]
        return case.packets, case.end

    def _whole(self, number: int, _line: bytes) -> Play:
        answer = ANSWERS[self._cases[number].answer](SECOND)
        if not self._cases[number].stream:
            return (wire.http_answer(200, wire.dump(answer.whole)),), "keep"
        events = answer.events
        return (CHUNKED + b"".join(map(wire.http_chunk, events)) + wire.LAST_CHUNK,), "keep"

    @asynccontextmanager
    async def router(self, more: str, lanes: int = 1) -> AsyncIterator[Router]:
        """Run a router in front of both upstreams. In each lane the first one has two backends, an engine and a cloud,
        so that what happens in one lane changes nothing in another."""
        async with self.first.serving() as first, self.second.serving() as second:
            lines, aliases = [cloud(second, "second")], ["aliases:\n"]
            for lane in range(lanes):
                for name, backend in zip(_backends(lane), (local, cloud), strict=True):
                    lines.append(backend(first, name))
                    aliases.append(f"  {name}: {{chain: [{name}, second]}}\n")
            async with routing(settings(*lines, more=MORE + more + "".join(aliases))) as router:
                yield router

    async def ask(self, client: RecordingClient, number: int, lane: int = 0) -> None:
        """Send one case and note what came out. Cases take turns between an engine and a cloud as the first backend."""
        case = self._cases[number]
        answer = ANSWERS[case.answer](FIRST)
        cloud_first = number % 2 if case.answer != SCORED else 0  # only an engine's answers are held back
        body = request_body(answer, number, _backends(lane)[cloud_first], case.stream)
        recorded = Recorded.of(answer.path, await client.ask(answer.path, body, {}))
        digest = self.digests[number] = recorded.digest
        self.replies.setdefault(digest, recorded)

    async def one_by_one(self, numbers: Iterable[int], more: str = PATIENT) -> None:
        """Send cases one after the other."""
        async with self.router(more) as router:
            client = _client(router)
            started = time.monotonic()
            for number in numbers:
                router.forget_calls()
                await self.ask(client, number)
                if number and number % SAY_EVERY == 0:
                    print(f"  {number} streams in {time.monotonic() - started:.0f} s", flush=True)
            client.close()

    async def at_once(self, numbers: Iterable[int], more: str = IMPATIENT, lanes: int = STALLS_AT_ONCE) -> None:
        """Send cases that take their time, many at once, to an impatient router."""
        left = iter(numbers)

        async def send_some(router: Router, lane: int) -> None:
            client = _client(router)
            for number in left:
                router.forget_failures(*_backends(lane))
                await self.ask(client, number, lane)
            client.close()

        async with self.router(more, lanes) as router:
            await asyncio.gather(*(send_some(router, lane) for lane in range(lanes)))


def _backends(lane: int) -> tuple[str, str]:
    """Return the names of the first backends in a lane."""
    return f"engine{lane}", f"cloud{lane}"


def _client(router: Router) -> RecordingClient:
    place = urlsplit(router.url)
    assert place.hostname is not None
    assert place.port is not None
    return RecordingClient(place.hostname, place.port)


async def _run(every: int, again: Sequence[int] | None) -> dict[str, object]:
    chosen = fault_matrix(every)
    matrix = Matrix(chosen.cases)
    numbers = range(len(chosen.cases)) if again is None else again
    await matrix.one_by_one([number for number in numbers if number < chosen.first_held])
    held = [number for number in numbers if chosen.first_held <= number < chosen.first_stalled]
    await matrix.one_by_one(held, CONFIDENT)
    stalled = [number for number in numbers if number >= chosen.first_stalled]
    if again is None:
        await matrix.at_once(stalled)
    else:
        await matrix.at_once(stalled, LESS_IMPATIENT, STALLS_AGAIN_AT_ONCE)
    return {
        "build": compiled.state(),
        "digests": matrix.digests,
        "replies": {digest: asdict(reply) for digest, reply in matrix.replies.items()},
        "unexpected": dict(UNEXPECTED.counts),
        "upstream_calls": [matrix.first.asked, matrix.second.asked],
    }


def main() -> None:
    """Run the matrix as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--again", type=Path, help="file with the numbers of the cases to send, a JSON list")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # the matrix contains thousands of failures
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        again = None if options.again is None else json.loads(options.again.read_text())
        result = runner.run(_run(options.every, again))
    options.output.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
