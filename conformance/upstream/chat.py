"""OpenAI's chat completions, whole and as a stream, and the chats that it stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from conformance.upstream.script import OUTPUT_TOKENS, PROMPT_TOKENS, Asked, Said, Tool, answer, named_in, pieces
from conformance.upstream.script import plain_text as text_of

CREATED = 1_790_000_000
USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": PROMPT_TOKENS + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}


def asked(body: Mapping[str, Any]) -> Asked:
    """Read a chat request."""
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    text = next((text_of(m.get("content")) for m in reversed(messages) if m.get("role") == "user"), "")
    functions = [tool.get("function", {}) for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    forced = choice.get("function", {}).get("name", "*") if isinstance(choice, dict) else ""
    tools = tuple(Tool(str(f.get("name")), f.get("parameters") or {}) for f in functions)
    return Asked(
        text=text,
        tools=() if choice == "none" else tools,
        forced="*" if choice == "required" else forced,
        has_result=bool(messages) and messages[-1].get("role") == "tool",
        schema=_schema(body.get("response_format"), text),
    )


def _schema(response_format: Any, text: str) -> Mapping[str, Any] | None:
    if not isinstance(response_format, dict) or response_format.get("type") == "text":
        return None
    if response_format.get("type") == "json_schema":
        return response_format.get("json_schema", {}).get("schema") or {}
    return named_in(text)


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a chat request."""
    said = answer(asked(body))
    choices = [
        {"index": index, "message": _message(said), "logprobs": _logprobs(body, said), "finish_reason": _finish(said)}
        for index in range(body.get("n") or 1)
    ]
    return {**_head(body, "chat.completion"), "choices": choices, "usage": USAGE}


def _head(body: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-scripted",
        "object": kind,
        "created": CREATED,
        "model": body.get("model", ""),
        "system_fingerprint": "fp_scripted",
        "service_tier": "default",
    }


def _message(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None, "annotations": []}
    if said.tool:
        message["tool_calls"] = [_call(said)]
    return message


def _call(said: Said) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": said.tool, "arguments": said.arguments}}


def _finish(said: Said) -> str:
    return "tool_calls" if said.tool else "stop"


def _logprobs(body: Mapping[str, Any], said: Said) -> dict[str, Any] | None:
    if not body.get("logprobs"):
        return None
    first = {"token": said.text[:5], "bytes": list(said.text[:5].encode()), "logprob": -0.1}
    return {"content": [{**first, "top_logprobs": []}], "refusal": None}


def stream(body: Mapping[str, Any]) -> Iterator[str]:
    """Answer a chat request as server-sent events."""
    said = answer(asked(body))
    head = _head(body, "chat.completion.chunk")
    wants_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def event(choices: list[dict[str, Any]], usage: Any = None) -> str:
        tail = {"usage": usage} if wants_usage else {}
        return f"data: {json.dumps({**head, 'choices': choices, **tail}, ensure_ascii=False)}\n\n"

    for index in range(body.get("n") or 1):
        for delta in _deltas(said):
            yield event([{"index": index, "delta": delta, "logprobs": _logprobs(body, said), "finish_reason": None}])
        yield event([{"index": index, "delta": {}, "logprobs": None, "finish_reason": _finish(said)}])
    if wants_usage:
        yield event([], USAGE)
    yield "data: [DONE]\n\n"


def _deltas(said: Said) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": None if said.tool else "", "refusal": None}
    if not said.tool:
        yield from ({"content": piece} for piece in pieces(said.text))
        return
    opening = _call(Said(tool=said.tool))
    yield {"tool_calls": [{"index": 0, **opening}]}
    yield from ({"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in pieces(said.arguments))


def stored(chat_id: str) -> dict[str, Any]:
    """Return a stored chat."""
    return {**whole({"model": "scripted"}), "id": chat_id, "metadata": {}}


def stored_message(chat_id: str) -> dict[str, Any]:
    """Return a message of a stored chat."""
    return {"id": f"{chat_id}-0", **_message(Said(text="Hello"))}
