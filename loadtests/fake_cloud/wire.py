"""Groq's side of the OpenAI wire format: request checks, its own fields in answers and events, its errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtests.fake_cloud.models import MODELS, CloudTokens, Latency, Model
from spillway_router.testing import openai_wire

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


class CloudApiError(Exception):
    """A request is answered with an error in Groq's shape. `headers` are further headers of that answer."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = {}
        self.body = openai_wire.error(message, type=kind, **({"code": code} if code else {}))


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked chat request. `text` is the last user message, `prompt` everything that the model reads."""

    model: Model
    text: str
    prompt: str
    messages: int
    stream: bool
    include_usage: bool
    include_reasoning: bool
    max_tokens: int


@dataclass(frozen=True, slots=True)
class CloudAnswer:
    """What the model says, cut into tokens, with its token counts and its latency."""

    id: str
    created: int
    model: str
    reasoning: tuple[str, ...]
    content: tuple[str, ...]
    finish: str
    tokens: CloudTokens
    latency: Latency


def parse(raw: bytes) -> ChatRequest:
    """Check a request body.

    Raises:
        CloudApiError: the body is invalid (400) or names a model that isn't offered (404).
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise CloudApiError(400, "could not parse JSON body", code="json_parse_error") from None
    if not isinstance(body, dict):
        raise CloudApiError(400, "request body must be a JSON object")
    for name, value in body.items():
        if (name in _UNSUPPORTED and value not in (None, False)) or name not in _KNOWN | _UNSUPPORTED:
            raise CloudApiError(400, f"property '{name}' is unsupported")
    if body.get("n") not in (None, 1):
        raise CloudApiError(400, "'n' : number must be at most 1")
    model = MODELS.get(str(body.get("model", "")))
    if model is None:
        message = f"The model `{body.get('model', '')}` does not exist or you do not have access to it."
        raise CloudApiError(404, message, code="model_not_found")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise CloudApiError(400, "'messages' : minimum number of items is 1")
    texts = [_message_text(number, message) for number, message in enumerate(messages)]
    users = [text for text, message in zip(texts, messages, strict=True) if message["role"] == "user"]
    options = body.get("stream_options")
    return ChatRequest(
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
        raise CloudApiError(400, f"'messages.{number}' : discriminator property 'role' has invalid value")
    content = message.get("content")
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, list):
        raise CloudApiError(400, f"'messages.{number}.content' : value must be a string or an array of parts")
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(text for text in texts if isinstance(text, str))


def _max_tokens(body: Mapping[str, Any], model: Model) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= model.max_output:
            raise CloudApiError(400, f"`{name}` must be between 1 and {model.max_output}")
        return value
    return model.max_output


def usage(answer: CloudAnswer) -> dict[str, Any]:
    """Return Groq's usage object, which has the times in seconds beside the tokens."""
    tokens, latency = answer.tokens, answer.latency
    counts = openai_wire.usage(
        tokens.prompt, tokens.completion, cached_tokens=tokens.cached, reasoning_tokens=tokens.reasoning
    )
    return {
        **counts,
        "queue_time": round(latency.queue, 9),
        "prompt_time": round(latency.prompt, 9),
        "completion_time": round(latency.completion, 9),
        "total_time": round(latency.total, 9),
    }


def completion(answer: CloudAnswer, request_id: str, show_reasoning: bool) -> dict[str, Any]:
    """Return the body of a whole answer."""
    message: dict[str, Any] = {"content": "".join(answer.content)}
    if show_reasoning and answer.reasoning:
        message["reasoning"] = "".join(answer.reasoning)
    return _frame(answer).whole(
        [openai_wire.message_choice(message, answer.finish)],
        usage(answer),
        usage_breakdown=None,
        system_fingerprint=_FINGERPRINT,
        x_groq={"id": request_id},
        service_tier="on_demand",
    )


def chunk(answer: CloudAnswer, delta: Mapping[str, Any], finish: str | None = None, **extra: object) -> bytes:
    """Return one stream event with this delta; `extra` are further fields of the event."""
    return event(answer, [openai_wire.delta_choice(delta, finish)], **extra)


def event(answer: CloudAnswer, choices: list[dict[str, Any]], **extra: object) -> bytes:
    """Return one stream event with these choices; the usage event has none."""
    return openai_wire.event(_frame(answer).chunk(choices, system_fingerprint=_FINGERPRINT, **extra))


def _frame(answer: CloudAnswer) -> openai_wire.Completion:
    return openai_wire.Completion(answer.id, answer.model, answer.created)


def catalogue(created: int) -> dict[str, Any]:
    """Return the body of `GET /openai/v1/models`. `created` is epoch seconds."""
    return openai_wire.model_list(
        openai_wire.model_card(
            model.id,
            created=created,
            owned_by=model.owner,
            active=True,
            context_window=model.context,
            public_apps=None,
            max_completion_tokens=model.max_output,
        )
        for model in MODELS.values()
    )
