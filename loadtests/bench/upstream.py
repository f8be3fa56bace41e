"""A stub upstream that costs next to nothing: OpenAI chat completions over a bare asyncio.Protocol.

    python -m loadtests.bench.upstream        # prints {"port": N} once it listens on 127.0.0.1

It answers with 1 KB of JSON or a stream of events, as the request's directive says (directive.py), and looks enough
like vLLM (/health, /v1/models, /metrics, also below any path) for routers that probe their workers. It records requests
with a tag and the time at which their connection was closed early, on the clock that all processes of a machine share
(CLOCK_MONOTONIC), so that another process can tell how long after its own close() the upstream saw the close:

    GET  /_stub/state              counts: connections opened, requests, completed, closed_early, open, open_peak
    GET  /_stub/wait?tag=T&for=F   answers when request T was `received`, when its answer `started`, or when it was
                                   `closed` early or complete; 404 after 10 s
    POST /_stub/reset              sets all counts to zero and forgets the recorded requests
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import sys
import time
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import httptools
import orjson
import uvloop

from loadtests.bench.directive import Directive, parse
from loadtests.bench.pacer import Pacer, Timer
from loadtests.bench.stub_answers import STREAM_HEAD, Frames, StreamShape, metrics
from loadtests.bench.stub_board import MAX_RECORDS, StubBoard, TaggedRequest
from spillway_router.testing import openai_wire as wire

WAIT_LIMIT_S = 10.0


class Connection(asyncio.Protocol):
    """One keep-alive connection. It carries one request at a time, as HTTP/1.1 proxies send them."""

    def __init__(self, board: StubBoard, frames: Frames, loop: asyncio.AbstractEventLoop, pacer: Pacer) -> None:
        self._pacer = pacer
        self._board = board
        self._frames = frames
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._keep_alive = True
        self._url = b""
        self._body: list[bytes] = []
        self._pending: list[bytes] = []
        self._next = 0
        self._gap_s = 0.0
        self._due_s = 0.0
        self._step_s = 0.0
        self._answering = False
        self._paused = False
        self._waiting_for_room = False
        self._timer: asyncio.TimerHandle | asyncio.Handle | Timer | None = None
        self._record: TaggedRequest | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports don't inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._board.connections += 1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._answering:
            self._board.closed_early += 1
            if self._record is not None:
                self._record.closed_ns = time.monotonic_ns()
                self._record.events_sent = self._next
            self._done()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._waiting_for_room:
            self._waiting_for_room = False
            self._send_next()

    def on_message_begin(self) -> None:
        self._body.clear()
        self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        # This must be asked here: the parser forgets the headers when this method returns.
        self._keep_alive = self._parser.should_keep_alive()
        path = self._url.partition(b"?")[0]
        if path.endswith(b"/chat/completions"):
            self._chat(b"".join(self._body))
        elif path == b"/_stub/wait":
            self._task = self._loop.create_task(self._wait(self._url.decode()))
        else:
            self._write(self._plain(path))

    def _plain(self, path: bytes) -> bytes:
        board = self._board
        if path == b"/_stub/state":
            return wire.http_answer(200, orjson.dumps(board.counts()))
        if path == b"/_stub/reset":
            board.reset()
            return wire.http_answer(200, b"{}")
        if path.endswith(b"/health"):
            return wire.http_answer(200, b"", "text/plain")
        if path.endswith(b"/v1/models"):
            card = wire.model_card(board.model, created=1, owned_by="stub", max_model_len=1_048_576)
            return wire.http_answer(200, orjson.dumps(wire.model_list([card])))
        if path.endswith(b"/metrics"):
            return wire.http_answer(200, metrics(board), "text/plain; version=0.0.4")
        return wire.http_answer(404, orjson.dumps(wire.error("the stub has no such route", type="not_found")))

    def _chat(self, raw: bytes) -> None:
        board = self._board
        if wire.is_probe(raw):
            self._write(wire.http_answer(200, wire.dump(wire.PROBED)))
            return
        board.requests += 1
        try:
            body = orjson.loads(raw)
            directive = parse(str(body["messages"][-1]["content"]))
        except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
            text = wire.error(f"the stub can't read this: {error}", type="invalid_request")
            self._write(wire.http_answer(400, orjson.dumps(text)))
            return
        self._answering = True
        board.open += 1
        board.open_peak = max(board.open_peak, board.open)
        self._record = None
        if directive.tag and len(board.records) < MAX_RECORDS:
            self._record = board.records[directive.tag] = TaggedRequest(received_ns=time.monotonic_ns())
            board.tick()
        self._prepare(body, directive)
        if directive.delay_ms:
            self._timer = self._loop.call_later(directive.delay_ms / 1000, self._start)
        else:
            self._start()

    def _prepare(self, body: dict[str, Any], directive: Directive) -> None:
        self._next = 0
        self._gap_s = 0.0
        if not body.get("stream"):
            self._pending = [self._frames.whole]
            return
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        alternatives = int(body.get("top_logprobs") or 0) if body.get("logprobs") else None
        frames = self._frames.stream(
            StreamShape(
                events=directive.events,
                event_bytes=directive.event_bytes,
                include_usage=usage,
                alternatives=alternatives,
            )
        )
        self._pending = frames
        self._step_s = directive.step_ms / 1000
        self._gap_s = directive.pace_ms / 1000 / max(1, directive.events)
        self._due_s = time.monotonic() + directive.delay_ms / 1000

    def _start(self) -> None:
        if self._record is not None:
            self._record.started_ns = time.monotonic_ns()
            self._board.tick()
        if len(self._pending) > 1:
            self._write(STREAM_HEAD)
        self._send_next()

    def _send_next(self) -> None:
        """Send one event per turn of the loop, so that a proxy reads them one by one, as from a real engine."""
        if self._paused:
            self._waiting_for_room = True
            return
        self._write(self._pending[self._next])
        self._next += 1
        if self._next == len(self._pending):
            self._complete()
        elif self._gap_s:
            # Counted from the planned moment, so that late timers don't stretch the stream.
            self._due_s += self._gap_s
            due = math.ceil(self._due_s / self._step_s) * self._step_s if self._step_s else self._due_s
            self._timer = self._pacer.call_at(due, self._send_next)
        else:
            self._timer = self._loop.call_soon(self._send_next)

    def _complete(self) -> None:
        self._board.completed += 1
        if self._record is not None:
            self._record.completed_ns = time.monotonic_ns()
            self._record.events_sent = self._next
        self._done()

    def _done(self) -> None:
        self._answering = False
        self._timer = None
        self._board.open -= 1
        self._board.tick()
        if self._transport is not None and not self._keep_alive:
            self._close()

    async def _wait(self, url: str) -> None:
        query = parse_qs(urlsplit(url).query)
        tag, state = query.get("tag", [""])[0], query.get("for", ["closed"])[0]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_LIMIT_S):
                while not (self._board.records.get(tag) or TaggedRequest()).reached(state):
                    await self._board.changed.wait()
        record = self._board.records.get(tag)
        if record is None or not record.reached(state):
            self._write(wire.http_answer(404, b'{"error":"did not happen in time"}'))
            return
        names = ("received_ns", "started_ns", "closed_ns", "completed_ns", "events_sent")
        self._write(wire.http_answer(200, orjson.dumps({name: getattr(record, name) for name in names})))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def serve(port: int, model: str) -> None:
    """Listen on 127.0.0.1 until SIGTERM or SIGINT; print the port as one JSON line."""
    loop = asyncio.get_running_loop()
    board, frames, pacer = StubBoard(model), Frames(model), Pacer(loop, time.monotonic)
    server = await loop.create_server(lambda: Connection(board, frames, loop, pacer), "127.0.0.1", port, backlog=1024)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sys.stdout.write(orjson.dumps({"port": server.sockets[0].getsockname()[1]}).decode() + "\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()
    pacer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Stub upstream for benchmarks.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="demo")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.model))


if __name__ == "__main__":
    main()
