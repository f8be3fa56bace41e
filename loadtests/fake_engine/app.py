"""The fake engine's HTTP application: vLLM's routes as a bare ASGI app, since every token is an event."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from loadtests.fake_engine import answers, metrics
from loadtests.fake_engine.answers import EngineAnswer
from loadtests.fake_engine.batch import BatchedRequest
from loadtests.fake_engine.live import LiveEngine
from loadtests.fake_engine.requests import CompletionRequest, EngineApiError, load, parse
from spillway_router.testing import asgi
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.asgi import Message, Receive, Send

EMBEDDING_SIZE = 64
_MAX_BODY_BYTES = 8 << 20
# The engine is sure of every token: load tests are about load, and escalating each answer would be another test.
_LOGPROB = -0.001


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """How the fake engine is set up.

    `model` is the name it serves. `stream_interval` is the number of tokens per event after the first (vLLM's flag).
    `cut_every` is a seeded fault: one stream out of so many breaks off after its first tokens (0: none does).
    """

    model: str = "demo"
    corpus: Mapping[str, str] = field(default_factory=dict)
    stream_interval: int = 1
    cut_every: int = 0


class FakeVllm:
    """The application. Serve it with an ASGI server that supports `lifespan`."""

    def __init__(self, engine: LiveEngine, setup: EngineSetup) -> None:
        self.engine = engine
        self._setup = setup
        self._numbers = count(1)
        self._streams = count(1)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's lifespan (ASGI)."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        try:
            await self._route(scope, receive, send)
        except EngineApiError as error:
            await asgi.send_answer(send, error.status, wire.dump(error.body))

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
        model = self._setup.model
        if any(name == wire.PROBE_HEADER.encode() for name, _ in scope["headers"]) and scope["method"] == "POST":
            await asgi.send_answer(send, 200, wire.dump(wire.PROBED))
            return
        match scope["method"], scope["path"]:
            case "GET", "/health":
                await asgi.send_answer(send, 200, b"")
            case "GET", "/metrics":
                await asgi.send_answer(send, 200, metrics.page(self.engine, model).encode(), "text/plain")
            case "GET", "/v1/models":
                cards = wire.model_list([wire.model_card(model, owned_by="vllm")])
                await asgi.send_answer(send, 200, wire.dump(cards))
            case "POST", ("/v1/chat/completions" | "/v1/completions") as path:
                request = parse(await _read(receive), model, chat=path == "/v1/chat/completions")
                await self._complete(request, receive, send)
            case "POST", "/v1/embeddings":
                await self._embed(await _read(receive), send)
            case _, path:
                raise EngineApiError(404, f"no route {path}", "NotFoundError")

    async def _complete(self, request: CompletionRequest, receive: Receive, send: Send) -> None:
        answer = answers.answer(self._setup.corpus, request.text, request.max_tokens)
        prompt_tokens = answers.count_tokens(request.prompt) + (answers.TEMPLATE_TOKENS if request.chat else 0)
        batched = self._admit(prompt_tokens, len(answer.tokens))
        completion = wire.Completion(
            f"chatcmpl-{next(self._numbers)}", self._setup.model, int(time.time()), request.chat
        )
        send_reply = self._stream if request.stream else self._whole
        task = asyncio.ensure_future(send_reply(completion, request, answer, batched, send))
        leaving = asyncio.ensure_future(asgi.wait_until_disconnected(receive))
        try:
            await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        finally:
            for each in (task, leaving):
                each.cancel()
            await asyncio.gather(task, leaving, return_exceptions=True)
            self.engine.leave(batched)

    def _admit(self, prompt_tokens: int, output_tokens: int) -> BatchedRequest:
        try:
            batched = self.engine.admit(prompt_tokens, output_tokens)
        except ValueError as error:
            raise EngineApiError(400, str(error)) from None
        if batched is None:
            raise EngineApiError(503, "The engine's queue is full. Try again later.", "ServiceUnavailableError")
        return batched

    async def _whole(
        self,
        completion: wire.Completion,
        request: CompletionRequest,
        answer: EngineAnswer,
        batched: BatchedRequest,
        send: Send,
    ) -> None:
        async for _ in self.engine.progress(batched):
            pass
        text = "".join(answer.tokens)
        logprobs = _logprobs(answer.tokens) if request.logprobs else None
        if request.chat:
            choice = wire.message_choice({"content": text}, answer.finish, logprobs)
        else:
            choice = wire.text_choice(text, answer.finish, logprobs)
        usage = wire.usage(batched.prompt_tokens, len(answer.tokens))
        await asgi.send_answer(send, 200, wire.dump(completion.whole([choice], usage)))

    async def _stream(
        self,
        completion: wire.Completion,
        request: CompletionRequest,
        answer: EngineAnswer,
        batched: BatchedRequest,
        send: Send,
    ) -> None:
        cut = self._setup.cut_every and next(self._streams) % self._setup.cut_every == 0
        await asgi.start_event_stream(send)
        if request.chat:
            await asgi.send_part(send, wire.event(completion.opening()))
        sent = 0
        async for produced in self.engine.progress(batched):
            last = batched.done
            if not (last or sent == 0 or produced - sent >= self._setup.stream_interval):
                continue
            tokens = answer.tokens[sent:produced]
            logprobs = _logprobs(tokens) if request.logprobs and tokens else None
            chunk = completion.said("".join(tokens), answer.finish if last else None, logprobs)
            await asgi.send_part(send, wire.event(chunk))
            sent = produced
            if cut and not last:
                raise ConnectionResetError("seeded fault: this stream breaks off")
        if request.include_usage:
            usage = wire.usage(batched.prompt_tokens, len(answer.tokens))
            await asgi.send_part(send, wire.event(completion.usage_chunk(usage)))
        await asgi.send_part(send, wire.DONE, last=True)

    async def _embed(self, raw: bytes, send: Send) -> None:
        given = load(raw, self._setup.model).get("input", "")
        texts = [str(text) for text in given] if isinstance(given, list) else [str(given)]
        tokens = sum(answers.count_tokens(text) for text in texts)
        batched = self._admit(max(1, tokens), 1)
        try:
            async for _ in self.engine.progress(batched):
                pass
        finally:
            self.engine.leave(batched)
        body = wire.embeddings(self._setup.model, [_vector(text) for text in texts], tokens)
        await asgi.send_answer(send, 200, wire.dump(body))


def _logprobs(tokens: Sequence[str]) -> dict[str, Any]:
    return wire.logprobs(wire.token_logprob(token, _LOGPROB) for token in tokens)


def _vector(text: str) -> list[float]:
    """Return a vector with elements from -1 to 1 that is the same for the same text."""
    digest = hashlib.sha512(text.encode("utf-8", "surrogatepass")).digest()
    return [(byte - 127.5) / 127.5 for byte in digest[:EMBEDDING_SIZE]]


async def _read(receive: Receive) -> bytes:
    try:
        return await asgi.read_body(receive, _MAX_BODY_BYTES)
    except asgi.BodyTooLargeError:
        raise EngineApiError(413, f"the body is larger than {_MAX_BODY_BYTES >> 20} MiB") from None
