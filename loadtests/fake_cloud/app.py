"""The stand-in's HTTP application: Groq's routes, plus `/bill` and `/seen` for whoever checks the router's accounts."""

from __future__ import annotations

import asyncio
import hmac
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from loadtests.fake_cloud import wire
from loadtests.fake_cloud.bill import Bill
from loadtests.fake_cloud.corpus import Found, look_up, pieces
from loadtests.fake_cloud.limits import Limits
from loadtests.fake_cloud.models import MODELS, Tokens, cacheable, timing
from loadtests.fake_cloud.wire import Answer, ApiError, Ask

_MAX_BODY_BYTES = 4 << 20
_TEMPLATE_TOKENS = 68  # what the chat template of these models adds to a request, and per message
_MESSAGE_TOKENS = 4
_REASONING = " The user wants the values of this biometry report. I read each label and copy its number as printed."
_EVENT_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """How to play the cloud: its key, the oracle, a seed for latencies, a factor on them, limits per model."""

    key: str
    answers: Mapping[str, str]
    seed: int = 1
    latency: float = 1.0
    requests_per_day: int = 500_000
    tokens_per_minute: int = 3_000_000


@dataclass(slots=True)
class Cloud:
    """What the process remembers."""

    setup: Setup
    bill: Bill = field(default_factory=Bill)
    limits: dict[str, Limits] = field(default_factory=dict)
    cached: set[tuple[str, str]] = field(default_factory=set)
    accepted: int = 0

    def answer(self, ask: Ask, found: Found) -> Answer:
        """Make up what the model says and what it takes; the same document takes the same time in every run."""
        rng = random.Random(f"{self.setup.seed}/{ask.model.id}/{found.sha256}")
        thought = pieces(_REASONING)[: rng.randint(8, 24)]
        said = pieces(found.answer)
        room = max(0, ask.max_tokens - len(thought))
        thought = thought[: ask.max_tokens]
        prompt = _TEMPLATE_TOKENS + _MESSAGE_TOKENS * ask.messages + len(pieces(ask.prompt))
        cached = cacheable(prompt) if (ask.model.id, found.sha256) in self.cached else 0
        content = said[:room]
        tokens = Tokens(prompt, cached, len(thought) + len(content), len(thought))
        return Answer(
            id=f"chatcmpl-{rng.getrandbits(96):024x}-{self.accepted}",
            created=int(time.time()),
            model=ask.model.id,
            reasoning=tuple(thought),
            content=tuple(content),
            finish="stop" if len(content) == len(said) else "length",
            tokens=tokens,
            timing=timing(ask.model, tokens, rng, self.setup.latency),
        )

    def accept(self, ask: Ask, request_id: str) -> Answer:
        """Let the request in: rate limits, bill, prompt cache. Raises ApiError 429."""
        found = look_up(self.setup.answers, ask.text)
        self.bill.arrived(found.sha256, found.known)
        answer = self.answer(ask, found)
        over = self._limits(ask.model.id).take(answer.tokens.prompt + answer.tokens.completion, time.monotonic())
        if over is not None:
            raise _rate_limited(ask.model.id, over.what, over.limit, over.asked, over.wait_s)
        self.accepted += 1
        self.cached.add((ask.model.id, found.sha256))
        self.bill.charge(request_id, ask.model.id, found.sha256, found.known, answer.tokens)
        return answer

    def rate_headers(self, model: str) -> dict[str, str]:
        """The `x-ratelimit-*` headers for this model."""
        return self._limits(model).headers(time.monotonic())

    def _limits(self, model: str) -> Limits:
        return self.limits.setdefault(model, Limits(self.setup.requests_per_day, self.setup.tokens_per_minute))


def _rate_limited(model: str, what: str, limit: int, asked: int, wait_s: float) -> ApiError:
    period = "tokens per minute (TPM)" if what == "tokens" else "requests per day (RPD)"
    wait = min(wait_s, 86_400.0)
    error = ApiError(
        429,
        f"Rate limit reached for model `{model}` in organization `org_standin` service tier `on_demand` on {period}: "
        f"Limit {limit}, Requested {asked}. Please try again in {wait:.3f}s.",
        kind=what,
        code="rate_limit_exceeded",
    )
    error.headers["retry-after"] = str(max(1, -int(-wait // 1)))
    return error


async def _stream(answer: Answer, ask: Ask, request_id: str) -> AsyncIterator[bytes]:
    """The events of one streamed answer, a few tokens each, at the pace of its timing."""
    yield wire.chunk(answer, {"role": "assistant", "content": ""}, x_groq={"id": request_id})
    thoughts = _groups(answer.reasoning) if ask.include_reasoning else []
    deltas = [{"reasoning": text, "channel": "analysis"} for text in thoughts]
    deltas += [{"content": text} for text in _groups(answer.content)]
    pause = answer.timing.completion / max(1, len(deltas))
    for delta in deltas:
        await asyncio.sleep(pause)
        yield wire.chunk(answer, delta)
    yield wire.chunk(answer, {}, answer.finish, x_groq={"id": request_id, "usage": wire.usage(answer)})
    if ask.include_usage:
        yield wire.event(answer, [], usage=wire.usage(answer))
    yield b"data: [DONE]\n\n"


def _groups(tokens: tuple[str, ...]) -> list[str]:
    return ["".join(tokens[at : at + _EVENT_TOKENS]) for at in range(0, len(tokens), _EVENT_TOKENS)]


async def _body(request: Request) -> bytes:
    raw = b""
    async for part in request.stream():
        raw += part
        if len(raw) > _MAX_BODY_BYTES:
            raise ApiError(413, "Request Entity Too Large", code="request_too_large")
    return raw


def build(setup: Setup) -> FastAPI:
    """The application for this set-up."""
    cloud = Cloud(setup)
    app = FastAPI(title="Stand-in cloud", docs_url=None, redoc_url=None, openapi_url=None)
    wanted = f"Bearer {setup.key}".encode()

    def check_key(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), wanted):
            raise ApiError(401, "Invalid API Key", code="invalid_api_key")

    @app.exception_handler(ApiError)
    async def refuse(_: Request, error: ApiError) -> Response:
        cloud.bill.refused[str(error.status)] += 1
        return JSONResponse(error.body, error.status, error.headers)

    @app.post("/openai/v1/chat/completions")
    async def chat(request: Request) -> Response:
        check_key(request)
        ask = wire.parse(await _body(request))
        request_id = f"req_{random.getrandbits(120):030x}"
        try:
            answer = cloud.accept(ask, request_id)
        except ApiError as error:
            error.headers.update(cloud.rate_headers(ask.model.id))
            raise
        headers = {"x-request-id": request_id, "x-groq-region": "local", **cloud.rate_headers(ask.model.id)}
        await asyncio.sleep(answer.timing.first_token)
        if ask.stream:
            events = _stream(answer, ask, request_id)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        await asyncio.sleep(answer.timing.completion)
        return JSONResponse(wire.completion(answer, request_id, ask.include_reasoning), headers=headers)

    @app.get("/openai/v1/models")
    async def models(request: Request) -> dict[str, object]:
        check_key(request)
        return wire.catalogue(created=1_754_407_957)

    @app.get("/openai/v1/models/{model:path}")
    async def one_model(request: Request, model: str) -> dict[str, object]:
        check_key(request)
        if model not in MODELS:
            raise ApiError(404, f"The model `{model}` does not exist.", code="model_not_found")
        listed: list[dict[str, object]] = wire.catalogue(created=1_754_407_957)["data"]
        return next(entry for entry in listed if entry["id"] == model)

    @app.get("/bill")
    async def bill(request: Request) -> dict[str, object]:
        check_key(request)
        return cloud.bill.statement()

    @app.get("/seen")
    async def seen(request: Request) -> dict[str, object]:
        check_key(request)
        return {"documents": dict(cloud.bill.seen), "unknown": sorted(cloud.bill.unknown)}

    return app
