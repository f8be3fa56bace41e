"""An ASGI application that looks like vLLM: `/health`, `/metrics` and chat completions, whole and streamed.

It answers every request with the tokens it was made with, and with usage and log-probabilities as vLLM sends them.
Serve it with any ASGI server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spillway_router.testing import openai_wire as wire
from spillway_router.testing.asgi import Message, Receive, Send, read_body, send_answer, send_part, start_event_stream

PROMPT_TOKENS = 7


class FakeEngine:
    """An engine that serves `model` and answers with `tokens`.

    `logprobs` has one natural logarithm per token (None: all -0.1). All attributes may be changed between requests.
    `bodies` holds the bodies of the requests so far; `/metrics` reports `running` and `waiting`.
    """

    def __init__(self, tokens: Sequence[str], logprobs: Sequence[float] | None = None, model: str = "m") -> None:
        self.tokens = tuple(tokens)
        self.logprobs = tuple(logprobs) if logprobs is not None else (-0.1,) * len(self.tokens)
        self.model = model
        self.running = 0
        self.waiting = 0
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        path = scope["path"]
        if scope["method"] == "GET":
            pages = {"/health": "", "/metrics": self._metrics()}
            await send_answer(send, 200 if path in pages else 404, pages.get(path, "").encode(), "text/plain")
            return
        body: dict[str, Any] = json.loads(await read_body(receive))
        if path != "/v1/chat/completions":
            await send_answer(send, 404, wire.dump(wire.error(f"no route {path}", code=404)))
            return
        if any(name == wire.PROBE_HEADER.encode() for name, _ in scope["headers"]):
            await send_answer(send, 200, wire.dump(wire.PROBED))
            return
        self.bodies.append(body)
        if body.get("stream"):
            await start_event_stream(send)
            for chunk in self._chunks(body):
                await send_part(send, wire.event(chunk))
            await send_part(send, wire.DONE, last=True)
        else:
            await send_answer(send, 200, wire.dump(self._whole(body)))

    def _whole(self, body: Mapping[str, Any]) -> dict[str, Any]:
        logprobs = wire.logprobs(map(self._logprob, range(len(self.tokens)))) if _wants_logprobs(body) else None
        choice = wire.message_choice({"content": "".join(self.tokens)}, logprobs=logprobs)
        return self._completion.whole([choice], self._usage)

    def _chunks(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        completion = self._completion
        yield completion.opening()
        for index, token in enumerate(self.tokens):
            logprobs = wire.logprobs([self._logprob(index)]) if _wants_logprobs(body) else None
            yield completion.said(token, logprobs=logprobs)
        yield completion.chunk([wire.delta_choice({}, "stop")])
        if (body.get("stream_options") or {}).get("include_usage"):
            yield completion.usage_chunk(self._usage)

    def _logprob(self, index: int) -> dict[str, Any]:
        return wire.token_logprob(self.tokens[index], self.logprobs[index])

    @property
    def _completion(self) -> wire.Completion:
        return wire.Completion("chatcmpl-1", self.model, 1_700_000_000)

    @property
    def _usage(self) -> dict[str, Any]:
        return wire.usage(PROMPT_TOKENS, len(self.tokens))

    def _metrics(self) -> str:
        series = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": 0,
            "generation_tokens_total": len(self.tokens) * len(self.bodies),
            "prompt_tokens_total": PROMPT_TOKENS * len(self.bodies),
        }
        return wire.metrics_page(series, self.model)


def _wants_logprobs(body: Mapping[str, Any]) -> bool:
    return body.get("logprobs") is True
