"""Ways in which an upstream fails before its first byte, and one that can be told how to fail while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from types import TracebackType
from typing import Any

Held = tuple[asyncio.StreamWriter, bool]

ANSWER = json.dumps(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
).encode()
_CHUNK = {"choices": [{"index": 0, "delta": {"content": "whole"}, "finish_reason": "stop"}]}
STREAM = b"data: " + json.dumps(_CHUNK).encode() + b"\n\ndata: [DONE]\n\n"
METRICS = b"""vllm:num_requests_running{engine="0"} %d
vllm:num_requests_waiting{engine="0"} 0
vllm:kv_cache_usage_perc{engine="0"} 0.01
vllm:generation_tokens_total{engine="0"} 1
vllm:prompt_tokens_total{engine="0"} 1
vllm:num_preemptions_total{engine="0"} 0
vllm:prefix_cache_queries_total{engine="0"} 0
"""


def _error(status: int, error: Mapping[str, Any]) -> bytes:
    body = json.dumps({"error": error}).encode()
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


ERRORS: dict[str, bytes] = {
    "500": _error(500, {"message": "x"}),
    "401": _error(401, {"message": "bad key", "code": "invalid_api_key"}),
    "404": _error(404, {"message": "no such page"}),
    "429 quota": _error(429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
}
"""Answers by which a backend fails."""
BREAKS = ("reset", "end", "half a head", "refused")
"""Ways in which its connections end."""
FAILURES = (*BREAKS, *ERRORS, "hang")


def whole_answer(*, stream: bool) -> bytes:
    """Return a good answer as bytes."""
    body, kind = (STREAM, b"text/event-stream") if stream else (ANSWER, b"application/json")
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind, len(body), body)


class FailingUpstream:
    """An upstream that answers, holds requests, or fails as `mode` says: `good`, `hold`, or one of FAILURES.

    `calls` counts the requests that arrived, `held` are those that wait for `fail`.
    """

    def __init__(self, mode: str = "good", *, engine: bool = False) -> None:
        self.mode = mode
        self.calls = 0
        self.held: list[Held] = []
        self.port = 0
        self._engine = engine
        self._running: int | None = None
        """What the metrics of a hung engine say for ever."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> FailingUpstream:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    async def listen(self) -> None:
        """Accept connections, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=2048)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Accept no more connections, and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            _reset(writer)

    async def fail(self, failure: str) -> None:
        """Fail from now on, and let the requests that are held fail."""
        self.mode = failure
        self._running = len(self.held) if failure == "hang" else None
        if failure == "refused":
            self.refuse()
        held, self.held = self.held, []
        for writer, stream in held:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._answer(writer, stream=stream)

    async def repair(self) -> None:
        """Answer from now on."""
        self.mode, self._running = "good", None
        await self.listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _length(head)
                body = await reader.readexactly(length) if length else b""
                if head.startswith(b"GET"):
                    self._answer_get(head, writer)
                    continue
                self.calls += 1
                stream = b'"stream":true' in body.replace(b" ", b"")
                if self.mode in ("hold", "hang"):
                    self.held.append((writer, stream))
                    continue
                if not self._answer(writer, stream=stream):
                    return
        except (ConnectionError, asyncio.IncompleteReadError, RuntimeError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer_get(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        running = len(self.held) if self._running is None else self._running
        if not self._engine:
            running = 0
        page = METRICS % running if b"/metrics" in head else b"{}"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (len(page), page))

    def _answer(self, writer: asyncio.StreamWriter, *, stream: bool) -> bool:
        """Answer as the mode says; return whether the connection stays open."""
        if self.mode == "hang":
            self.held.append((writer, stream))
            return True
        if self.mode == "good":
            writer.write(whole_answer(stream=stream))
            return True
        if self.mode in ERRORS:
            writer.write(ERRORS[self.mode])
            return True
        if self.mode == "half a head":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-ty")
        if self.mode == "reset":
            _reset(writer)
        else:
            writer.close()
        return False


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
