"""vLLM's request and answer shapes. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TEMPLATE_TOKENS = 8


class ApiError(Exception):
    """An error answer as vLLM words it."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": status}}


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked request. `text` is the last user message or the prompt, `prompt` all that the model reads."""

    chat: bool
    text: str
    prompt: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    logprobs: bool


def parse(raw: bytes, model: str, *, chat: bool) -> Ask:
    """Check a body of chat or text completions. Raises ApiError."""
    body = load(raw, model)
    texts = [_text(message) for message in _messages(body)] if chat else [str(body.get("prompt", ""))]
    options = body.get("stream_options")
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ApiError(400, f"max_tokens must be at least 1, got {most}.")
    return Ask(
        chat=chat,
        text=texts[-1],
        prompt="\n".join(texts),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=most,
        logprobs=body.get("logprobs") is True,
    )


def load(raw: bytes, model: str) -> dict[str, Any]:
    """The JSON object of a body that asks for `model`. Raises ApiError."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object")
    if body.get("model") != model:
        raise ApiError(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError")
    return body


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise ApiError(400, "messages must be a list of at least one message")
    return messages


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")


@dataclass(frozen=True, slots=True)
class Frame:
    """What all events of one answer share."""

    id: str
    model: str
    created: int
    chat: bool

    def whole(self, tokens: Sequence[str], finish: str, usage: Mapping[str, int], logprobs: bool) -> bytes:
        """The body of a whole answer."""
        text = "".join(tokens)
        scores = _scores(tokens) if logprobs else None
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": scores, "finish_reason": finish}
        kind = "chat.completion" if self.chat else "text_completion"
        return json.dumps({**self._head(kind), "choices": [choice], "usage": usage}).encode()

    def event(self, tokens: Sequence[str], finish: str | None, logprobs: bool) -> bytes:
        """One stream event with these tokens."""
        text = "".join(tokens)
        said: dict[str, Any] = {"delta": {"content": text}} if self.chat else {"text": text}
        scores = _scores(tokens) if logprobs and tokens else None
        return self._event([{"index": 0, **said, "logprobs": scores, "finish_reason": finish}])

    def opening(self) -> bytes:
        """The event that begins a chat stream."""
        delta = {"role": "assistant", "content": ""}
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])

    def usage_event(self, usage: Mapping[str, int]) -> bytes:
        """The event that carries the usage."""
        return self._event([], usage=usage)

    def _event(self, choices: list[dict[str, Any]], **extra: object) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = {**self._head(kind), "choices": choices, **extra}
        return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _scores(tokens: Sequence[str]) -> dict[str, Any]:
    # Sure of every token: load tests are about load, and an escalation of each answer would be another test.
    return {"content": [{"token": t, "logprob": -0.001, "bytes": None, "top_logprobs": []} for t in tokens]}


def usage(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    """vLLM's usage object."""
    total = prompt_tokens + output_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens, "total_tokens": total}


def embeddings(model: str, vectors: Sequence[Sequence[float]], prompt_tokens: int) -> bytes:
    """The body of an answer with one vector per input."""
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    used = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return json.dumps({"object": "list", "model": model, "data": data, "usage": used}).encode()


def template_tokens(messages: int) -> int:
    """Tokens that a chat template adds."""
    return _TEMPLATE_TOKENS * messages
