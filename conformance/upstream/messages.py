"""Anthropic's messages, whole and as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from conformance.upstream.script import OUTPUT_TOKENS, PROMPT_TOKENS, Asked, Said, Tool, answer, pieces
from conformance.upstream.script import plain_text as text_of


def asked(body: Mapping[str, Any]) -> Asked:
    """Read a request for a message."""
    messages = [message for message in body.get("messages") or () if isinstance(message, dict)]
    last = messages[-1].get("content") if messages else ""
    choice = body.get("tool_choice") or {}
    tools = tuple(Tool(str(t.get("name")), t["input_schema"]) for t in body.get("tools") or () if "input_schema" in t)
    shape = (body.get("output_config") or {}).get("format") or {}
    return Asked(
        text=text_of(last),
        tools=() if choice.get("type") == "none" else tools,
        forced={"any": "*", "tool": str(choice.get("name", ""))}.get(choice.get("type", ""), ""),
        has_result=isinstance(last, list) and any(part.get("type") == "tool_result" for part in last),
        schema=shape.get("schema"),
    )


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request for a message."""
    said = answer(asked(body))
    return {**_head(body), "content": [_block(said)], "stop_reason": _stop_reason(said)}


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": body.get("model", ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": PROMPT_TOKENS,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "inference_geo": None,
            "output_tokens": OUTPUT_TOKENS,
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": "standard",
        },
    }


def _block(said: Said) -> dict[str, Any]:
    if said.tool:
        call = {"type": "tool_use", "id": "toolu_1", "name": said.tool, "input": json.loads(said.arguments)}
        return {**call, "caller": {"type": "direct"}}
    return {"type": "text", "text": said.text, "citations": None}


def _stop_reason(said: Said) -> str:
    return "tool_use" if said.tool else "end_turn"


def stream(body: Mapping[str, Any]) -> Iterator[str]:
    """Answer a request for a message as server-sent events."""
    said = answer(asked(body))
    empty = {**_block(said), "input": {}} if said.tool else _block(Said())
    yield _event("message_start", message={**_head(body), "usage": {**_head(body)["usage"], "output_tokens": 1}})
    yield _event("content_block_start", index=0, content_block=empty)
    yield _event("ping")
    for piece in pieces(said.arguments if said.tool else said.text):
        delta = {"type": "input_json_delta", "partial_json": piece} if said.tool else _text_delta(piece)
        yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    ending = {"stop_reason": _stop_reason(said), "stop_sequence": None}
    yield _event("message_delta", delta=ending, usage={"output_tokens": OUTPUT_TOKENS})
    yield _event("message_stop")


def _text_delta(piece: str) -> dict[str, Any]:
    return {"type": "text_delta", "text": piece}


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"
