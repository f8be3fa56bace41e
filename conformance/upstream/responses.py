"""OpenAI's Responses API, whole and as a stream, and what it stores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from conformance.upstream.chat import CREATED
from conformance.upstream.script import OUTPUT_TOKENS, PROMPT_TOKENS, Asked, Said, Tool, answer, named_in, pieces
from conformance.upstream.script import plain_text as text_of

USAGE = {
    "input_tokens": PROMPT_TOKENS,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": OUTPUT_TOKENS,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": PROMPT_TOKENS + OUTPUT_TOKENS,
}
_DEFAULTS: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
"""The fields of a request that its answer repeats, with their defaults."""


def asked(body: Mapping[str, Any]) -> Asked:
    """Read a request for a response."""
    given = body.get("input")
    items = [item for item in given if isinstance(item, dict)] if isinstance(given, list) else []
    texts = [text_of(item.get("content")) for item in reversed(items)]
    text = given if isinstance(given, str) else next((part for part in texts if part), "")
    functions = [tool for tool in body.get("tools") or () if tool.get("type") == "function"]
    choice = body.get("tool_choice")
    forced = str(choice.get("name", "*")) if isinstance(choice, dict) else ""
    tools = tuple(Tool(str(f.get("name")), f.get("parameters") or {}) for f in functions)
    return Asked(
        text=text,
        tools=() if choice == "none" else tools,
        forced="*" if choice == "required" else forced,
        has_result=bool(items) and items[-1].get("type") == "function_call_output",
        schema=_schema((body.get("text") or {}).get("format"), text),
    )


def _schema(text_format: Any, text: str) -> Mapping[str, Any] | None:
    if not isinstance(text_format, dict) or text_format.get("type") == "text":
        return None
    schema: Mapping[str, Any] = text_format.get("schema") or named_in(text)
    return schema


def whole(body: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a request for a response."""
    output = [*_reasoning(body), _item(answer(asked(body)), "completed")]
    ended = {"status": "completed", "completed_at": CREATED + 1, "usage": USAGE}
    return {**_head(body), **ended, "output": output}


def _head(body: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: default if body.get(name) is None else body[name] for name, default in _DEFAULTS.items()}
    reasoning = body.get("reasoning") or {}
    text = body.get("text") or {}
    return {
        **said,
        "id": (body.get("metadata") or {}).get("scripted_id") or "resp_scripted",
        "object": "response",
        "created_at": CREATED,
        "completed_at": None,
        "status": "in_progress",
        "background": bool(body.get("background")),
        "error": None,
        "incomplete_details": None,
        "model": body.get("model") or "scripted",
        "output": [],
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "text": {"format": text.get("format") or {"type": "text"}},
        "tools": [_tool(tool) for tool in body.get("tools") or ()],
        "usage": None,
    }


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as an answer repeats it: with what the request left out."""
    if tool.get("type") != "function":
        return dict(tool)
    return {"description": None, "parameters": {}, "strict": True, **tool}


def _reasoning(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not (body.get("reasoning") or {}).get("summary"):
        return []
    summary = [{"type": "summary_text", "text": "The script asks for a short answer."}]
    return [{"type": "reasoning", "id": "rs_1", "summary": summary}]


def _item(said: Said, status: str) -> dict[str, Any]:
    if said.tool:
        call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": said.tool}
        return {**call, "arguments": said.arguments, "status": status}
    content = [_part(said.text)] if status == "completed" else []
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def stream(body: Mapping[str, Any]) -> Iterator[str]:
    """Answer a request for a response as server-sent events."""
    for number, (kind, fields) in enumerate(_events(body)):
        event = {"type": kind, "sequence_number": number, **fields}
        yield f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


def _events(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    said, done = answer(asked(body)), whole(body)
    place: dict[str, Any] = {"output_index": len(done["output"]) - 1}
    yield "response.created", {"response": _head(body)}
    yield "response.in_progress", {"response": _head(body)}
    for index, item in enumerate(done["output"][:-1]):
        yield "response.output_item.added", {"output_index": index, "item": {**item, "summary": []}}
        yield "response.output_item.done", {"output_index": index, "item": item}
    opening = _item(Said(tool=said.tool) if said.tool else said, "in_progress")
    yield "response.output_item.added", {**place, "item": opening}
    yield from _call_events(said, place) if said.tool else _text_events(said, place)
    yield "response.output_item.done", {**place, "item": done["output"][-1]}
    yield "response.completed", {"response": done}


def _call_events(said: Said, place: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    where = {**place, "item_id": "fc_1"}
    for piece in pieces(said.arguments):
        yield "response.function_call_arguments.delta", {**where, "delta": piece}
    yield "response.function_call_arguments.done", {**where, "name": said.tool, "arguments": said.arguments}


def _text_events(said: Said, place: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    where = {**place, "item_id": "msg_1", "content_index": 0}
    yield "response.content_part.added", {**where, "part": _part("")}
    for piece in pieces(said.text):
        yield "response.output_text.delta", {**where, "delta": piece, "logprobs": []}
    yield "response.output_text.done", {**where, "text": said.text, "logprobs": []}
    yield "response.content_part.done", {**where, "part": _part(said.text)}


def stored(response_id: str, status: str = "completed") -> dict[str, Any]:
    """Return a stored response."""
    return {**whole({"input": "Hello"}), "id": response_id, "status": status}


def compacted() -> dict[str, Any]:
    """Return a compacted conversation."""
    item = {"type": "compaction", "id": "cmp_1", "encrypted_content": "c2NyaXB0ZWQ="}
    head = {"id": "resp_compacted", "object": "response.compaction", "created_at": CREATED}
    return {**head, "output": [item], "usage": USAGE}


def input_items(response_id: str) -> dict[str, Any]:
    """Return the input of a stored response."""
    content = [{"type": "input_text", "text": "Hello"}]
    name = f"msg_of_{response_id}"
    item = {"type": "message", "id": name, "role": "user", "status": "completed", "content": content}
    return {"object": "list", "data": [item], "first_id": name, "last_id": name, "has_more": False}
