"""The requests that the fake engine accepts, checked as vLLM checks them, and the errors of those it refuses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.testing import openai_wire

RECURSIVE = b'{"$ref": "#"}'
"""A JSON schema that refers to itself. vLLM 0.32 answers 500 to a request with one."""


class EngineApiError(Exception):
    """A request is answered with an error in vLLM's shape."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.body = openai_wire.error(message, type=kind, param=None, code=status)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request for a chat or text completion.

    `text` is the last message or the prompt, `prompt` everything that the model reads. `max_tokens` None: no limit.
    """

    chat: bool
    text: str
    prompt: str
    stream: bool
    include_usage: bool
    max_tokens: int | None
    logprobs: bool


def parse(raw: bytes, model: str, *, chat: bool) -> CompletionRequest:
    """Check the body of a chat or text completion.

    Raises:
        EngineApiError: the body is invalid or asks for another model.
    """
    body = load(raw, model)
    texts = [_text(message) for message in _messages(body)] if chat else [str(body.get("prompt", ""))]
    options = body.get("stream_options")
    max_tokens = body.get("max_completion_tokens") or body.get("max_tokens")
    if max_tokens is not None and (not isinstance(max_tokens, int) or max_tokens < 1):
        raise EngineApiError(400, f"max_tokens must be at least 1, got {max_tokens}.")
    return CompletionRequest(
        chat=chat,
        text=texts[-1],
        prompt="\n".join(texts),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        max_tokens=max_tokens,
        logprobs=body.get("logprobs") is True,
    )


def load(raw: bytes, model: str) -> dict[str, Any]:
    """Parse the body of a request for `model`.

    Raises:
        EngineApiError: the body is no JSON object (400) or asks for another model (404).
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise EngineApiError(400, "the body is not JSON") from None
    if not isinstance(body, dict):
        raise EngineApiError(400, "the body must be a JSON object")
    if RECURSIVE in raw:
        raise EngineApiError(500, "maximum recursion depth exceeded", "InternalServerError")
    if body.get("model") != model:
        raise EngineApiError(404, f"The model `{body.get('model')}` does not exist.", "NotFoundError")
    return body


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise EngineApiError(400, "messages must be a list of at least one message")
    return messages


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content or "")
