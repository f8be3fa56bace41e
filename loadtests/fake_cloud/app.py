"""The fake cloud's HTTP application: Groq's routes, and `/bill` and `/seen` for checks of the router's accounts."""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from loadtests.fake_cloud import wire
from loadtests.fake_cloud.bill import CloudBill
from loadtests.fake_cloud.corpus import CorpusEntry, look_up, pieces
from loadtests.fake_cloud.limits import LimitExceeded, Limits
from loadtests.fake_cloud.models import MODELS, CloudTokens, cacheable, draw_latency
from loadtests.fake_cloud.wire import ChatRequest, CloudAnswer, CloudApiError
from spillway_router.testing import openai_wire

_MAX_BODY_BYTES = 4 << 20
_TEMPLATE_TOKENS = 68  # what the chat template of these models adds to a request, and per message
_MESSAGE_TOKENS = 4
_REASONING = " The user wants the values of this biometry report. I read each label and copy its number as printed."
_EVENT_TOKENS = 4
_KeyCheck = Callable[[Request], None]


@dataclass(frozen=True, slots=True)
class CloudSetup:
    """How the fake cloud is set up.

    `key` is the API key it accepts, `answers` the oracle by document hash, `seed` that of the latencies, `latency` a
    factor on them. The limits hold per model.
    """

    key: str
    answers: Mapping[str, str]
    seed: int = 1
    latency: float = 1.0
    requests_per_day: int = 500_000
    tokens_per_minute: int = 3_000_000


@dataclass(slots=True)
class FakeCloud:
    """The state of the process: its bill, its limits and what its prompt cache holds."""

    setup: CloudSetup
    bill: CloudBill = field(default_factory=CloudBill)
    limits: dict[str, Limits] = field(default_factory=dict)
    cached: set[tuple[str, str]] = field(default_factory=set)
    accepted: int = 0

    def answer(self, request: ChatRequest, entry: CorpusEntry) -> CloudAnswer:
        """Make up the model's answer and its latency; the same document takes the same time in every run."""
        rng = random.Random(f"{self.setup.seed}/{request.model.id}/{entry.sha256}")
        thought = pieces(_REASONING)[: rng.randint(8, 24)]
        said = pieces(entry.answer)
        room = max(0, request.max_tokens - len(thought))
        thought = thought[: request.max_tokens]
        prompt = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * request.messages + len(pieces(request.prompt))
        cached = cacheable(prompt) if (request.model.id, entry.sha256) in self.cached else 0
        content = said[:room]
        tokens = CloudTokens(
            prompt=prompt, cached=cached, completion=len(thought) + len(content), reasoning=len(thought)
        )
        return CloudAnswer(
            id=f"chatcmpl-{rng.getrandbits(96):024x}-{self.accepted}",
            created=int(time.time()),
            model=request.model.id,
            reasoning=tuple(thought),
            content=tuple(content),
            finish="stop" if len(content) == len(said) else "length",
            tokens=tokens,
            latency=draw_latency(request.model, tokens, rng, self.setup.latency),
        )

    def accept(self, request: ChatRequest, request_id: str) -> CloudAnswer:
        """Admit a request: check the rate limits, charge it, and put its document into the prompt cache.

        Raises:
            CloudApiError: a rate limit is reached (429).
        """
        entry = look_up(self.setup.answers, request.text)
        self.bill.arrived(entry.sha256, entry.known)
        answer = self.answer(request, entry)
        tokens = answer.tokens.prompt + answer.tokens.completion
        exceeded = self._limits(request.model.id).take(tokens, time.monotonic())
        if exceeded is not None:
            raise _rate_limited(request.model.id, exceeded)
        self.accepted += 1
        self.cached.add((request.model.id, entry.sha256))
        self.bill.charge(
            request_id=request_id,
            model=request.model.id,
            sha256=entry.sha256,
            in_corpus=entry.known,
            tokens=answer.tokens,
        )
        return answer

    def rate_headers(self, model: str) -> dict[str, str]:
        """Return the `x-ratelimit-*` headers for this model."""
        return self._limits(model).headers(time.monotonic())

    def _limits(self, model: str) -> Limits:
        return self.limits.setdefault(model, Limits(self.setup.requests_per_day, self.setup.tokens_per_minute))


def _rate_limited(model: str, exceeded: LimitExceeded) -> CloudApiError:
    period = "tokens per minute (TPM)" if exceeded.unit == "tokens" else "requests per day (RPD)"
    wait_s = min(exceeded.wait_s, 86_400.0)
    error = CloudApiError(
        429,
        f"Rate limit reached for model `{model}` in organization `org_standin` service tier `on_demand` on {period}: "
        f"Limit {exceeded.limit}, Requested {exceeded.requested}. Please try again in {wait_s:.3f}s.",
        kind=exceeded.unit,
        code="rate_limit_exceeded",
    )
    error.headers["retry-after"] = str(max(1, -int(-wait_s // 1)))
    return error


async def _stream(answer: CloudAnswer, chat: ChatRequest, request_id: str) -> AsyncIterator[bytes]:
    """Yield the events of one streamed answer, a few tokens each, at the pace of its latency."""
    yield wire.chunk(answer, {"role": "assistant", "content": ""}, x_groq={"id": request_id})
    thoughts = _groups(answer.reasoning) if chat.include_reasoning else []
    deltas = [{"reasoning": text, "channel": "analysis"} for text in thoughts]
    deltas += [{"content": text} for text in _groups(answer.content)]
    pause = answer.latency.completion / max(1, len(deltas))
    for delta in deltas:
        await asyncio.sleep(pause)
        yield wire.chunk(answer, delta)
    yield wire.chunk(answer, {}, answer.finish, x_groq={"id": request_id, "usage": wire.usage(answer)})
    if chat.include_usage:
        yield wire.event(answer, [], usage=wire.usage(answer))
    yield openai_wire.DONE


def _groups(tokens: tuple[str, ...]) -> list[str]:
    return ["".join(tokens[at : at + _EVENT_TOKENS]) for at in range(0, len(tokens), _EVENT_TOKENS)]


async def _body(request: Request) -> bytes:
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > _MAX_BODY_BYTES:
            raise CloudApiError(413, "Request Entity Too Large", code="request_too_large")
    return raw


def build(setup: CloudSetup) -> FastAPI:
    """Build the application."""
    cloud = FakeCloud(setup)
    app = FastAPI(title="Fake cloud", docs_url=None, redoc_url=None, openapi_url=None)
    authorization = f"Bearer {setup.key}".encode()

    def check_key(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), authorization):
            raise CloudApiError(401, "Invalid API Key", code="invalid_api_key")

    @app.exception_handler(CloudApiError)
    async def refuse(_: Request, error: CloudApiError) -> Response:
        cloud.bill.refused[str(error.status)] += 1
        return JSONResponse(error.body, error.status, error.headers)

    _add_chat(app, cloud, check_key)
    _add_models(app, check_key)
    _add_books(app, cloud, check_key)
    return app


def _add_chat(app: FastAPI, cloud: FakeCloud, check_key: _KeyCheck) -> None:
    @app.post("/openai/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        check_key(request)
        chat = wire.parse(await _body(request))
        request_id = f"req_{random.getrandbits(120):030x}"
        try:
            answer = cloud.accept(chat, request_id)
        except CloudApiError as error:
            error.headers.update(cloud.rate_headers(chat.model.id))
            raise
        headers = {"x-request-id": request_id, "x-groq-region": "local", **cloud.rate_headers(chat.model.id)}
        await asyncio.sleep(answer.latency.first_token)
        if chat.stream:
            events = _stream(answer, chat, request_id)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        await asyncio.sleep(answer.latency.completion)
        return JSONResponse(wire.completion(answer, request_id, chat.include_reasoning), headers=headers)


def _add_models(app: FastAPI, check_key: _KeyCheck) -> None:
    @app.get("/openai/v1/models")
    async def models(request: Request) -> dict[str, object]:
        check_key(request)
        return wire.catalogue(created=1_754_407_957)

    @app.get("/openai/v1/models/{model:path}")
    async def one_model(request: Request, model: str) -> dict[str, object]:
        check_key(request)
        if model not in MODELS:
            raise CloudApiError(404, f"The model `{model}` does not exist.", code="model_not_found")
        listed: list[dict[str, object]] = wire.catalogue(created=1_754_407_957)["data"]
        return next(entry for entry in listed if entry["id"] == model)


def _add_books(app: FastAPI, cloud: FakeCloud, check_key: _KeyCheck) -> None:
    """Add the cloud's own account of a run, for whoever compares it with the router's."""

    @app.get("/bill")
    async def bill(request: Request) -> dict[str, object]:
        check_key(request)
        return cloud.bill.statement()

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, object]:
        check_key(request)
        return {"documents": dict(cloud.bill.seen), "unknown": sorted(cloud.bill.unknown)}
