"""An ASGI application that looks like vLLM: `/health`, `/metrics`, chat completions whole and streamed, with usage and
logprobs. It answers every request with the tokens it was made with; serve it with any ASGI server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PROMPT_TOKENS = 7


class FakeEngine:
    """`tokens` is the answer, `logprobs` one number per token (None: all -0.1), `model` its name.

    Attributes may be changed between requests. `bodies` holds what was asked. `running` and `waiting` are what
    `/metrics` shows.
    """

    def __init__(self, tokens: Sequence[str], logprobs: Sequence[float] | None = None, model: str = "m") -> None:
        self.tokens = tuple(tokens)
        self.logprobs = tuple(logprobs) if logprobs is not None else (-0.1,) * len(self.tokens)
        self.model = model
        self.running = 0
        self.waiting = 0
        self.bodies: list[dict[str, Any]] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        path = scope["path"]
        if scope["method"] == "GET":
            known = {"/health": "", "/metrics": self._metrics()}
            await _answer(send, 200 if path in known else 404, known.get(path, ""), "text/plain")
            return
        body = await _read(receive)
        if path != "/v1/chat/completions":
            await _answer(send, 404, json.dumps({"error": {"message": f"no route {path}", "code": 404}}))
            return
        self.bodies.append(body)
        if body.get("stream"):
            await self._stream(body, send)
        else:
            await _answer(send, 200, json.dumps(self._whole(body)))

    def _whole(self, body: Mapping[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(self.tokens)},
            "logprobs": {"content": [self._score(i) for i in range(len(self.tokens))]} if _scored(body) else None,
            "finish_reason": "stop",
        }
        return {**self._frame("chat.completion"), "choices": [choice], "usage": self._usage()}

    async def _stream(self, body: Mapping[str, Any], send: Send) -> None:
        kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": kind})
        for event in self._events(body):
            data = b"data: " + json.dumps(event).encode() + b"\n\n"
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _events(self, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        frame = self._frame("chat.completion.chunk")
        yield {**frame, "choices": [_delta({"role": "assistant", "content": ""})]}
        for i, token in enumerate(self.tokens):
            scores = {"content": [self._score(i)]} if _scored(body) else None
            yield {**frame, "choices": [{**_delta({"content": token}), "logprobs": scores}]}
        yield {**frame, "choices": [{**_delta({}), "finish_reason": "stop"}]}
        if (body.get("stream_options") or {}).get("include_usage"):
            yield {**frame, "choices": [], "usage": self._usage()}

    def _score(self, i: int) -> dict[str, Any]:
        return {"token": self.tokens[i], "logprob": self.logprobs[i], "bytes": None, "top_logprobs": []}

    def _frame(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": kind, "created": 1_700_000_000, "model": self.model}

    def _usage(self) -> dict[str, int]:
        output = len(self.tokens)
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output, "total_tokens": PROMPT_TOKENS + output}

    def _metrics(self) -> str:
        output = len(self.tokens) * len(self.bodies)
        values = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": 0,
            "generation_tokens_total": output,
            "prompt_tokens_total": PROMPT_TOKENS * len(self.bodies),
        }
        return "".join(f'vllm:{n}{{engine="0",model_name="{self.model}"}} {v}\n' for n, v in values.items())


def _scored(body: Mapping[str, Any]) -> bool:
    return body.get("logprobs") is True


def _delta(delta: dict[str, str]) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}


async def _read(receive: Receive) -> dict[str, Any]:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            found: dict[str, Any] = json.loads(b"".join(parts))
            return found


async def _answer(send: Send, status: int, body: str, kind: str = "application/json") -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body.encode())).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
