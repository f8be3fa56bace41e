"""Sends made-up requests to a router and judges what follows."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httptools

from evidence.fuzz.requests import ALLOWED, FuzzedRequest, Keys, made_up

CONNECTIONS = 32
ANSWER_S = 30.0
KEPT = 40
"""The most findings whose bytes are kept."""
REFUSALS = frozenset({"local_only_unavailable", "no_backend", "overloaded"})
"""The codes of a 503 that is right although every backend is up: nothing may serve this request."""


@dataclass(frozen=True, slots=True)
class Place:
    """The router, and what reached its backends so far: the tags at any of them, and those at a cloud."""

    host: str
    port: int
    keys: Keys
    local: set[str]
    cloud: set[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """A request after which something happened that must never happen."""

    what: str
    raw: bytes


@dataclass
class Trial:
    """The findings, and how many requests of each kind got which status ("none": the connection ended)."""

    requests: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How many findings there were of each sort."""

    def note(self, what: str, request: FuzzedRequest) -> None:
        """Count a finding."""
        self.counts[what] += 1
        if len(self.findings) < KEPT:
            self.findings.append(Finding(what, request.raw))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class _Parser:
    """Reads one answer."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = self.parser.get_status_code() >= 200

    def on_message_begin(self) -> None:
        self.body.clear()


async def fuzz(
    place: Place, seed: int, most: int, until: Callable[[], bool] = lambda: False, connections: int = CONNECTIONS
) -> Trial:
    """Send `most` requests, or fewer if `until` says so before, over that many connections at once."""
    trial = Trial()
    rng = random.Random(seed)

    def requests() -> Iterator[FuzzedRequest]:
        while trial.requests < most and not until():
            trial.requests += 1
            yield made_up(rng, place.keys)

    source = requests()
    sent: list[FuzzedRequest] = []
    await asyncio.gather(*(_client(place, source, trial, sent) for _ in range(connections)))
    for request in sent:
        if request.kind == "stranger" and request.tag in place.local | place.cloud:
            trial.note("a request without a key reached a backend", request)
        if request.kind == "private" and request.tag in place.cloud:
            trial.note("a private request reached a cloud", request)
    return trial


async def _client(place: Place, source: Iterator[FuzzedRequest], trial: Trial, sent: list[FuzzedRequest]) -> None:
    """Send one request after the other, over one connection for as long as it stays open."""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    for request in source:
        answer, is_reusable = None, False
        for attempt in range(2):
            is_fresh = writer is None
            if reader is None or writer is None:
                reader, writer = await asyncio.open_connection(place.host, place.port)
            answer, is_reusable = await _ask(reader, writer, request)
            if not is_reusable:
                writer.close()
                reader = writer = None
            if answer is not None or is_fresh or attempt:
                break
        _judge(request, answer, trial)
        if request.kind in ("stranger", "private"):
            sent.append(request)
    if writer is not None:
        writer.close()


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: FuzzedRequest
) -> tuple[_Answer | None, bool]:
    """Return the answer, None if the connection ended before it, and whether another request may follow."""
    parser = _Parser()
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(request.raw)
            if request.closes:
                writer.write_eof()
            while not parser.is_complete:
                data = await reader.read(65_536)
                if not data:
                    break
                parser.parser.feed_data(data)
                if request.raw.startswith(b"HEAD ") and b"\r\n\r\n" in data:
                    return _Answer(parser.parser.get_status_code(), b""), False
    except (ConnectionError, TimeoutError, httptools.HttpParserError):
        return None, False
    status = parser.parser.get_status_code() if parser.is_complete or parser.body else 0
    if not status:
        return None, False
    return _Answer(
        status, bytes(parser.body)
    ), parser.is_complete and not request.closes and parser.parser.should_keep_alive()


def _judge(request: FuzzedRequest, answer: _Answer | None, trial: Trial) -> None:
    trial.statuses[f"{request.kind} {'none' if answer is None else answer.status}"] += 1
    if answer is None:
        if not request.closes:
            trial.note("no answer", request)
        return
    if answer.status >= 500 and not (answer.status == 503 and _code(answer.body) in REFUSALS):
        trial.note(f"{answer.status} {_code(answer.body)}", request)
    method, target = request.raw.split(b" ", 2)[:2]
    if 200 <= answer.status < 300 and method != b"OPTIONS":
        opened = target.partition(b"?")[0].partition(b"#")[0].decode("latin-1") in ALLOWED
        if request.kind == "visitor" or (request.kind == "stranger" and not opened):
            trial.note(f"a {request.kind} got {answer.status}", request)


def _code(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"].get("code"))
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def deadline(seconds: float, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Return a function that says whether so many seconds have passed."""
    end = clock() + seconds
    return lambda: clock() >= end
