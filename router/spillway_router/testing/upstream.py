"""An upstream that fails on demand: the test chooses at which byte, and how the connection ends.

It listens on a port of the loopback that the operating system chooses, speaks just enough HTTP/1.1 (POST with a
`content-length`, keep-alive), and writes its answers as raw bytes, so that an answer is cut exactly where a test wants.

    answer = Answer.stream(events, cut=120, end="rst")      # 120 bytes of the body, then a reset
    async with FaultUpstream() as upstream:
        upstream.answer = answer                            # for every request from now on
        upstream.script.append(Answer.json({...}, 429))     # or for the next one only

`GET /health` answers `health`, 200 at first, and `GET /metrics` shows an idle vLLM, so that it can stand in for a local
engine too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

from spillway_router.testing import openai_wire as wire

End = Literal[
    "whole",  # the HTTP body is ended properly and the connection stays open
    "fin",  # the connection closes before the HTTP body has ended
    "rst",  # the connection is reset
    "hang",  # nothing more is sent and the connection stays open
]

BEAT_S = 0.005
"""Seconds between two beats of an answer that never ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One scripted answer.

    cut: the answer ends after this many bytes of the body (None: the whole body is sent).
    end: how the connection ends after that.
    piece: bytes of the body per write and HTTP chunk; 0 sends the body in one write.
    chunked: the body is framed in HTTP chunks instead of by its length.
    silent: nothing is sent, not even a head.
    gate: the head is sent only when this event is set.
    beat: sent after the body every `BEAT_S` seconds for as long as the client stays.
    pause: a number of bytes and an event; so much of the body goes out in one write, the rest when the event is set.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cut: int | None = None
    end: End = "whole"
    piece: int = 0
    chunked: bool = False
    silent: bool = False
    gate: asyncio.Event | None = None
    beat: bytes = b""
    pause: tuple[int, asyncio.Event] | None = None

    @classmethod
    def stream(cls, events: bytes, *, cut: int | None = None, end: End = "whole", piece: int = 0) -> Answer:
        """Return a chunked event stream."""
        kind = (("content-type", wire.EVENT_STREAM),)
        return cls(events, headers=kind, cut=cut, end=end, piece=piece, chunked=True)

    @classmethod
    def json(cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """Return a whole JSON answer."""
        kind = (("content-type", wire.JSON), *(headers or {}).items())
        return cls(json.dumps(value).encode(), status, kind)

    def after(self, gate: asyncio.Event) -> Answer:
        """Return the same answer, held back until the gate opens."""
        return replace(self, gate=gate)

    def then(self, beat: bytes) -> Answer:
        """Return the same answer without an end: `beat` follows its body again and again."""
        return replace(self, beat=beat)

    def pausing(self, at: int, gate: asyncio.Event) -> Answer:
        """Return the same answer, held back after `at` bytes of its body until the gate opens."""
        return replace(self, pause=(at, gate))

    def head(self) -> bytes:
        """Return the status line and the headers."""
        framing = "transfer-encoding: chunked" if self.chunked else f"content-length: {len(self.body)}"
        lines = [f"HTTP/1.1 {self.status} X", framing, *(f"{n}: {v}" for n, v in self.headers)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def writes(self) -> list[bytes]:
        """Return the writes that make up the body, cut and framed, without its end."""
        sent = self.body if self.cut is None else self.body[: self.cut]
        size = self.piece or len(sent) or 1
        if self.pause is not None:
            at = self.pause[0]
            return [self.frame(part) for part in (sent[:at], sent[at:])]
        parts = [sent[i : i + size] for i in range(0, len(sent), size)]
        return [self.frame(part) for part in parts]

    def frame(self, part: bytes) -> bytes:
        """Frame one write as an HTTP chunk where the answer is chunked."""
        return wire.http_chunk(part) if self.chunked else part


@dataclass(slots=True)
class Arrival:
    """One request that arrived. `closed` is set when its connection is gone."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        """Return the body, parsed as JSON."""
        return json.loads(self.body)


class FaultUpstream:
    """The upstream of this module; an async context manager that serves while its block runs.

    `script` holds answers for the next requests, one each; `answer` is for all other requests. `metrics` is the page of
    `GET /metrics`.
    """

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer or Answer.json({"error": {"message": "no answer was scripted"}}, 500)
        self.script: deque[Answer] = deque()
        self.seen: list[Arrival] = []
        """All POST requests, in the order of their arrival."""
        self.arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        """The same requests as a queue, for tests that wait for the next one."""
        self.metrics = wire.IDLE_METRICS
        self.models: Mapping[str, Any] = {"data": []}
        """The page of `GET /v1/models`."""
        self.health = 200
        """The status of `GET /health`."""
        self.gets: dict[str, Any] = {}
        """Further pages by path and query, as JSON."""
        self.abilities: Callable[[Any], Answer] = lambda _: Answer.json(wire.PROBED)
        """Returns the answer to the body of a probing request, which counts as no arrival. By default all is there."""
        self.choose: Callable[[Arrival], Answer] | None = None
        """Chooses the answer to a request, where the script is empty; None: `answer`."""
        self.root = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Return the base URL of the API, which ends in `/v1`."""
        return self.root + "/v1"

    async def __aenter__(self) -> FaultUpstream:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.root = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def arrival(self, within_s: float = 10.0) -> Arrival:
        """Return the next request that no earlier call has returned.

        Raises:
            TimeoutError: no request arrived within `within_s` seconds.
        """
        async with asyncio.timeout(within_s):
            return await self.arrivals.get()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # drain() waits until the system has all of it
        mine: list[Arrival] = []
        try:
            while True:
                method, arrived = await self._read(reader)
                if method == "GET":
                    await self._answer_get(writer, arrived.path)
                    continue
                if arrived.headers.get(wire.PROBE_HEADER) == "proof":
                    await self._write(self._usual(arrived), reader, writer)
                    continue
                if wire.PROBE_HEADER in arrived.headers:
                    await self._write(self.abilities(arrived.json), reader, writer)
                    continue
                mine.append(arrived)
                self.seen.append(arrived)
                self.arrivals.put_nowait(arrived)
                answer = self.script.popleft() if self.script else self._usual(arrived)
                if not await self._write(answer, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            for arrived in mine:
                arrived.closed.set()

    def _usual(self, arrived: Arrival) -> Answer:
        return self.choose(arrived) if self.choose else self.answer

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> tuple[str, Arrival]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in head[1:] if line)}
        return method, Arrival(path, headers, await reader.readexactly(int(headers.get("content-length", "0"))))

    async def _answer_get(self, writer: asyncio.StreamWriter, path: str) -> None:
        pages = {"/health": b"", "/metrics": self.metrics, "/v1/models": wire.dump(self.models)}
        body = wire.dump(self.gets[path]) if path in self.gets else pages.get(path)
        status = 404 if body is None else self.health if path == "/health" else 200
        answer = Answer(body or b"", status, (("content-type", "text/plain"),))
        await _send(writer, answer.head() + answer.body)

    @staticmethod
    async def _write(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the answer; return whether the connection may carry another request."""
        if answer.gate is not None and not await _opened(answer.gate, reader):
            return False
        if not answer.silent:
            await _send(writer, answer.head())
            for i, part in enumerate(answer.writes()):
                if i and answer.pause is not None and not await _opened(answer.pause[1], reader):
                    return False
                await _send(writer, part)
                await asyncio.sleep(0)  # so that pieces are read one by one
            while answer.beat:
                await _send(writer, answer.frame(answer.beat))
                await asyncio.sleep(BEAT_S)
        if answer.end == "whole" and answer.chunked:
            await _send(writer, wire.LAST_CHUNK)
        elif answer.end == "rst":
            reset(writer.transport)
        elif answer.end == "hang":
            await _client_gone(reader)
        return answer.end == "whole"


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Hand data to the operating system.

    Raises:
        ConnectionError: the client is gone (uvloop by itself would raise RuntimeError).
    """
    if writer.is_closing():
        raise ConnectionResetError
    writer.write(data)
    await writer.drain()


async def _client_gone(reader: asyncio.StreamReader) -> None:
    """Return when the client has closed its end; drop whatever it sends until then."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(4096):
            pass


async def _opened(gate: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """Return True when the gate opens, or False when the client is gone before."""
    gone, opened = asyncio.create_task(_client_gone(reader)), asyncio.create_task(gate.wait())
    try:
        await asyncio.wait({gone, opened}, return_when=asyncio.FIRST_COMPLETED)
        return not gone.done()
    finally:
        for task in (gone, opened):
            task.cancel()
        await asyncio.gather(gone, opened, return_exceptions=True)


def reset(transport: asyncio.WriteTransport) -> None:
    """End the connection with RST: set SO_LINGER to 0 seconds on a second handle of the same socket."""
    original: socket.socket = transport.get_extra_info("socket")
    with socket.socket(fileno=os.dup(original.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
