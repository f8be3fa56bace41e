"""The shapes of Groq's API: checked request, completion, stream events, errors. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.fake_cloud.models import MODELS, Model, Timing, Tokens

# Groq answers 400 to fields it doesn't know and to these, which OpenAI knows and Groq doesn't.
_UNSUPPORTED = frozenset({"logit_bias", "logprobs", "top_logprobs"})
_KNOWN = frozenset(
    {
        "messages",
        "model",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "stop",
        "seed",
        "user",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "frequency_penalty",
        "presence_penalty",
        "reasoning_effort",
        "reasoning_format",
        "include_reasoning",
        "service_tier",
        "metadata",
        "store",
        "search_settings",
        "documents",
        "citation_options",
        "disable_tool_validation",
    }
)
_FINGERPRINT = "fp_3d587a02fb"


class ApiError(Exception):
    """An error answer: HTTP status and the fields of Groq's error object."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind}}
        if code:
            self.body["error"]["code"] = code


@dataclass(frozen=True, slots=True)
class Ask:
    """A checked chat request. `text` is the last user message, `prompt` everything the model reads."""

    model: Model
    text: str
    prompt: str
    messages: int
    stream: bool
    include_usage: bool
    include_reasoning: bool
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says, cut into tokens, with its accounts."""

    id: str
    created: int
    model: str
    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    finish: str
    tokens: Tokens
    timing: Timing


def parse(raw: bytes) -> Ask:
    """Check a request body. Raises ApiError (400, or 404 for a model that isn't offered)."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ApiError(400, "could not parse JSON body", code="json_parse_error") from None
    if not isinstance(body, dict):
        raise ApiError(400, "request body must be a JSON object")
    for name, value in body.items():
        if (name in _UNSUPPORTED and value not in (None, False)) or name not in _KNOWN | _UNSUPPORTED:
            raise ApiError(400, f"property '{name}' is unsupported")
    if body.get("n") not in (None, 1):
        raise ApiError(400, "'n' : number must be at most 1")
    model = MODELS.get(str(body.get("model", "")))
    if model is None:
        message = f"The model `{body.get('model', '')}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "'messages' : minimum number of items is 1")
    texts = [_message_text(number, message) for number, message in enumerate(messages)]
    users = [text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"]
    options = body.get("stream_options")
    return Ask(
        model=model,
        text=users[-1] if users else "",
        prompt="\n".join(texts),
        messages=len(messages),
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        include_reasoning=body.get("include_reasoning") is not False,
        max_tokens=_max_tokens(body, model),
    )


def _message_text(number: int, message: object) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ApiError(400, f"'messages.{number}' : discriminator property 'role' has invalid value")
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, list):
        raise ApiError(400, f"'messages.{number}.content' : value must be a string or an array of parts")
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _max_tokens(body: Mapping[str, Any], model: Model) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= model.max_output:
            raise ApiError(400, f"`{name}` must be between 1 and {model.max_output}")
        return value
    return model.max_output


def usage(answer: Answer) -> dict[str, Any]:
    """Groq's usage object: tokens, and times in seconds."""
    tokens, took = answer.tokens, answer.timing
    return {
        "queue_time": round(took.queue, 9),
        "prompt_tokens": tokens.prompt,
        "prompt_time": round(took.prompt, 9),
        "completion_tokens": tokens.completion,
        "completion_time": round(took.completion, 9),
        "total_tokens": tokens.prompt + tokens.completion,
        "total_time": round(took.total, 9),
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def completion(answer: Answer, request_id: str, show_reasoning: bool) -> dict[str, Any]:
    """The body of a whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": "".join(answer.content)}
    if show_reasoning and answer.reasoning:
        message["reasoning"] = "".join(answer.reasoning)
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}],
        "usage": usage(answer),
        "usage_breakdown": None,
        "system_fingerprint": _FINGERPRINT,
        "x_groq": {"id": request_id},
        "service_tier": "on_demand",
    }


def chunk(answer: Answer, delta: Mapping[str, Any], finish: str | None = None, **extra: object) -> bytes:
    """One stream event."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return event(answer, [choice], **extra)


def event(answer: Answer, choices: list[dict[str, Any]], **extra: object) -> bytes:
    """One stream event with these choices (none: the usage event)."""
    body = {
        "id": answer.id,
        "object": "chat.completion.chunk",
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": _FINGERPRINT,
        "choices": choices,
        **extra,
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def catalogue(created: int) -> dict[str, Any]:
    """The body of GET /openai/v1/models."""
    data = [
        {
            "id": model.id,
            "object": "model",
            "created": created,
            "owned_by": model.owner,
            "active": True,
            "context_window": model.context,
            "public_apps": None,
            "max_completion_tokens": model.max_output,
        }
        for model in MODELS.values()
    ]
    return {"object": "list", "data": data}
