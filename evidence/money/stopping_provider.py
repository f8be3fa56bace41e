"""A provider whose streams are left: it goes on and bills all of an answer, or stops and bills what it made.

It keeps its own bill in tokens. An answer is told its length and its place in the table of protocols by the request
(`seed`); its usage comes at the end, as each protocol has it, and a messages stream tells the prompt at its beginning.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from evidence.connections import serving_connections
from spillway_router.testing import openai_wire as wire

WORDS = ("a", "of", "the", "gate", "river", "stone ", "morning", "eleven ", "it", ", ", "because", " in")
EVENT_S = 0.001
"""Between two events."""


@dataclass(frozen=True, slots=True)
class Billed:
    """The bill of one call, in tokens."""

    prompt: int
    completion: int


@dataclass(slots=True)
class StoppingProvider:
    """The provider as an async context manager. `goes_on`: what it does when a connection closes.

    `bills` holds what each call cost by its `x-client-request-id`; `open` is the number of answers in progress.
    """

    goes_on: bool
    bills: dict[str, Billed] = field(default_factory=dict)
    open: int = 0
    url: str = ""
    _connections: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> StoppingProvider:
        origin = await self._connections.enter_async_context(serving_connections(self._serve))
        self.url = f"{origin}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                path = head[0].split(" ")[1].removeprefix("/v1")
                await self._answer(path, headers["x-client-request-id"], json.loads(body), reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, path: str, call: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answer = Streamed.of(path, body)
        gone = asyncio.create_task(reader.read(1))
        self.open += 1
        tokens_made = 0
        try:
            writer.write(wire.http_stream_head())
            for event, tokens in answer.events():
                if gone.done() and not self.goes_on:
                    break
                tokens_made += tokens
                if not gone.done():
                    writer.write(wire.http_chunk(event))
                    await writer.drain()
                await asyncio.sleep(EVENT_S)
            else:
                if not gone.done():
                    writer.write(wire.LAST_CHUNK)
        except ConnectionError:
            tokens_made = answer.tokens if self.goes_on else tokens_made
        finally:
            self.open -= 1
            self.bills[call] = Billed(answer.prompt, tokens_made)
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Streamed:
    """One answer: its protocol, the tokens of its prompt, and the texts of its tokens, some of which come together."""

    path: str
    prompt: int
    texts: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, path: str, body: dict[str, Any]) -> Streamed:
        """Return the answer to a request; a seed in its `user` makes it the same each time."""
        chance = random.Random(str(body.get("user", body.get("metadata", {}).get("user_id"))))
        most = 1 if path == "/chat/completions" else 4
        events = tuple(
            tuple(chance.choice(WORDS) for _ in range(chance.randint(1, most))) for _ in range(chance.randint(10, 60))
        )
        return cls(path, len(json.dumps(body)) // 4, events)

    @property
    def tokens(self) -> int:
        """The tokens of the whole answer."""
        return sum(len(texts) for texts in self.texts)

    def events(self) -> Iterator[tuple[bytes, int]]:
        """Yield each event and the tokens that it brings."""
        make = {"/chat/completions": self._chat, "/completions": self._completions, "/responses": self._responses}
        yield from make.get(self.path, self._messages)()

    def _chat(self) -> Iterator[tuple[bytes, int]]:
        yield wire.event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}), 0
        for texts in self.texts:
            yield wire.event({"choices": [{"index": 0, "delta": {"content": "".join(texts)}}]}), len(texts)
        yield wire.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), 0
        yield wire.event({"choices": [], "usage": wire.usage(self.prompt, self.tokens)}), 0
        yield wire.DONE, 0

    def _completions(self) -> Iterator[tuple[bytes, int]]:
        for texts in self.texts:
            yield wire.event({"choices": [{"index": 0, "text": "".join(texts)}]}), len(texts)
        yield wire.event({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}), 0
        yield wire.event({"choices": [], "usage": wire.usage(self.prompt, self.tokens)}), 0
        yield wire.DONE, 0

    def _responses(self) -> Iterator[tuple[bytes, int]]:
        yield _named({"type": "response.created", "response": {"id": "r"}}), 0
        for texts in self.texts:
            yield _named({"type": "response.output_text.delta", "delta": "".join(texts)}), len(texts)
        whole = "".join(text for texts in self.texts for text in texts)
        yield _named({"type": "response.output_text.done", "text": whole}), 0
        usage = {"input_tokens": self.prompt, "output_tokens": self.tokens, "total_tokens": self.prompt + self.tokens}
        yield _named({"type": "response.completed", "response": {"id": "r", "usage": usage, "output": []}}), 0

    def _messages(self) -> Iterator[tuple[bytes, int]]:
        start = {"id": "m", "content": [], "usage": {"input_tokens": self.prompt, "output_tokens": 1}}
        yield _named({"type": "message_start", "message": start}), 0
        yield _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}), 0
        for texts in self.texts:
            delta = {"type": "text_delta", "text": "".join(texts)}
            yield _named({"type": "content_block_delta", "index": 0, "delta": delta}), len(texts)
        usage = {"output_tokens": self.tokens}
        yield _named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}), 0
        yield _named({"type": "message_stop"}), 0


def _named(value: dict[str, Any]) -> bytes:
    return wire.event(value, str(value["type"]))
