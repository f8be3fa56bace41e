"""The fake engine's HTTP application: vLLM's routes as a bare ASGI app, since every token is an event."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loadtests.fake_engine import answers, metrics, wire
from loadtests.fake_engine.batch import Sequence
from loadtests.fake_engine.live import LiveEngine
from loadtests.fake_engine.wire import ApiError, Ask, Frame

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EMBEDDING_SIZE = 64
_MAX_BODY_BYTES = 8 << 20
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Setup:
    """`model`: its name. `stream_interval`: tokens per event after the first (vLLM's flag). `cut_every`: break off
    every so-manieth stream after its first tokens, a seeded fault (0: never)."""

    model: str = "demo"
    corpus: Mapping[str, str] = field(default_factory=dict)
    stream_interval: int = 1
    cut_every: int = 0


class FakeVllm:
    """The application; serve it with any ASGI server that speaks `lifespan`."""

    def __init__(self, engine: LiveEngine, setup: Setup) -> None:
        self.engine = engine
        self._setup = setup
        self._numbers = count(1)
        self._streams = count(1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            await self._route(scope, receive, send)
        except ApiError as error:
            await _answer(send, error.status, json.dumps(error.body).encode())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        stepping = asyncio.create_task(self.engine.run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        stepping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stepping
        await send({"type": "lifespan.shutdown.complete"})

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        match scope["method"], scope["path"]:
            case "GET", "/health":
                await _answer(send, 200, b"")
            case "GET", "/metrics":
                await _answer(send, 200, metrics.page(self.engine, self._setup.model).encode(), "text/plain")
            case "GET", "/v1/models":
                card = {"id": self._setup.model, "object": "model", "owned_by": "vllm"}
                await _answer(send, 200, json.dumps({"object": "list", "data": [card]}).encode())
            case "POST", ("/v1/chat/completions" | "/v1/completions") as path:
                ask = wire.parse(await _read(receive), self._setup.model, chat=path == "/v1/chat/completions")
                await self._complete(ask, receive, send)
            case "POST", "/v1/embeddings":
                await self._embed(await _read(receive), send)
            case _, path:
                raise ApiError(404, f"no route {path}", "NotFoundError")

    async def _complete(self, ask: Ask, receive: Receive, send: Send) -> None:
        said = answers.answer(self._setup.corpus, ask.text, ask.max_tokens)
        prompt = answers.count(ask.prompt) + (wire.template_tokens(1) if ask.chat else 0)
        sequence = self._admit(prompt, len(said.tokens))
        frame = Frame(f"chatcmpl-{next(self._numbers)}", self._setup.model, int(time.time()), ask.chat)
        work = (
            self._stream(frame, ask, said, sequence, send)
            if ask.stream
            else self._whole(frame, ask, said, sequence, send)
        )
        task, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        finally:
            for each in (task, leaving):
                each.cancel()
            await asyncio.gather(task, leaving, return_exceptions=True)
            self.engine.leave(sequence)

    def _admit(self, prompt_tokens: int, output_tokens: int) -> Sequence:
        try:
            sequence = self.engine.admit(prompt_tokens, output_tokens)
        except ValueError as error:
            raise ApiError(400, str(error)) from None
        if sequence is None:
            raise ApiError(503, "The engine's queue is full. Try again later.", "ServiceUnavailableError")
        return sequence

    async def _whole(self, frame: Frame, ask: Ask, said: answers.Answer, sequence: Sequence, send: Send) -> None:
        async for _ in self.engine.progress(sequence):
            pass
        used = wire.usage(sequence.prompt_tokens, len(said.tokens))
        await _answer(send, 200, frame.whole(said.tokens, said.finish, used, ask.logprobs))

    async def _stream(self, frame: Frame, ask: Ask, said: answers.Answer, sequence: Sequence, send: Send) -> None:
        cut = self._setup.cut_every and next(self._streams) % self._setup.cut_every == 0
        kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        if ask.chat:
            await _part(send, frame.opening())
        sent = 0
        async for out in self.engine.progress(sequence):
            last = sequence.done
            if not (last or sent == 0 or out - sent >= self._setup.stream_interval):
                continue
            await _part(send, frame.event(said.tokens[sent:out], said.finish if last else None, ask.logprobs))
            sent = out
            if cut and not last:
                raise ConnectionResetError("seeded fault: this stream breaks off")
        if ask.include_usage:
            await _part(send, frame.usage_event(wire.usage(sequence.prompt_tokens, len(said.tokens))))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _embed(self, raw: bytes, send: Send) -> None:
        given = wire.load(raw, self._setup.model).get("input", "")
        texts = [str(text) for text in given] if isinstance(given, list) else [str(given)]
        tokens = sum(answers.count(text) for text in texts)
        sequence = self._admit(max(1, tokens), 1)
        try:
            async for _ in self.engine.progress(sequence):
                pass
        finally:
            self.engine.leave(sequence)
        await _answer(send, 200, wire.embeddings(self._setup.model, [_vector(text) for text in texts], tokens))


def _vector(text: str) -> list[float]:
    """A unit-free vector that is the same for the same text."""
    digest = hashlib.sha512(text.encode("utf-8", "surrogatepass")).digest()
    return [(byte - 127.5) / 127.5 for byte in digest[:EMBEDDING_SIZE]]


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive) -> bytes:
    raw = b""
    while True:
        message = await receive()
        raw += bytes(message.get("body", b""))
        if len(raw) > _MAX_BODY_BYTES:
            raise ApiError(413, f"the body is larger than {_MAX_BODY_BYTES >> 20} MiB")
        if not message.get("more_body"):
            return raw


async def _part(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _answer(send: Send, status: int, body: bytes, kind: str = _JSON) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
