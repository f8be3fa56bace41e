"""A backend for the fuzzer: it answers every request of every route rightly, and notes the tags that reach it."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import Final

from evidence.connections import serving_connections
from spillway_router.testing import openai_wire as wire
from spillway_router.testing import streams

_TAG: Final = re.compile(rb"tag-[0-9a-f]{16}")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM: Final = re.compile(rb'"stream" ?: ?(true|1(\.0)?\b)')
_USAGE: Final = wire.usage(3, 2)
_TEXT: Final = "yes"


def _whole() -> dict[bytes, bytes]:
    completion = wire.Completion("c", "m", 1)
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    output = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": _TEXT}]}
    tokens = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    bodies: dict[bytes, object] = {
        b"/v1/chat/completions": completion.whole([wire.message_choice({"content": _TEXT})], _USAGE),
        b"/v1/completions": completion.whole([wire.text_choice(_TEXT, "stop")], _USAGE),
        b"/v1/embeddings": wire.embeddings("m", [[0.1, 0.2]], 3),
        b"/v1/responses": {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "output": [output],
            "usage": tokens,
        },
        b"/v1/messages": {**message, "content": [{"type": "text", "text": _TEXT}], "usage": tokens},
        b"/v1/messages/count_tokens": {"input_tokens": 3},
        b"/v1/responses/input_tokens": {"input_tokens": 3},
        b"/v1/models": wire.model_list([wire.model_card("demo")]),
    }
    return {path: wire.http_answer(200, wire.dump(body)) for path, body in bodies.items()}


def _streams() -> dict[bytes, bytes]:
    all_streams = (streams.chat(_TEXT), streams.completions(_TEXT), streams.responses(_TEXT), streams.messages(_TEXT))
    head = wire.http_stream_head()
    return {s.path.encode(): head + wire.http_chunk(s.body) + wire.LAST_CHUNK for s in all_streams}


class TaggingUpstream:
    """A server on a free port of the loopback. `tags` holds every tag that arrived."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.url = ""
        self._whole, self._streams = _whole(), _streams()
        self._connections = AsyncExitStack()

    async def __aenter__(self) -> TaggingUpstream:
        self.url = await self._connections.enter_async_context(serving_connections(self._serve, limit=1 << 22))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.tags.update(tag.decode() for tag in _TAG.findall(head + body))
                writer.write(self._answer(head.split(b" ", 2)[1], body))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, target: bytes, body: bytes) -> bytes:
        path = target.partition(b"?")[0]
        if path == b"/health":
            return wire.http_answer(200, b"")
        if path == b"/metrics":
            return wire.http_answer(200, wire.IDLE_METRICS, "text/plain")
        answers = self._streams if _STREAM.search(body) and path in self._streams else self._whole
        return answers.get(path) or wire.http_answer(404, wire.dump(wire.error("no such route")))
