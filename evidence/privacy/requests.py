"""Bodies that hold a text in every field and on every endpoint."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from spillway_router.core.routing.model import Endpoint

Body = dict[str, Any]
FILLERS = (
    "Please summarize this for the weekly report. ",
    "Was bedeutet das für uns? Überlege größere Schritte. ",
    "请用三句话说明这个问题。",
    "def read(path):\n    return open(path).read()\n",
    "It was said in 1998, twice: yes. ",
)


def _chat(content: object, **more: object) -> tuple[Endpoint, Body]:
    return "chat", {"model": "out", "messages": [{"role": "user", "content": content}], **more}


def _split(text: str, random: Random) -> tuple[str, str]:
    at = random.randint(1, max(1, len(text) - 1))
    return text[:at], text[at:]


def _parts(text: str, random: Random, kind: str = "text") -> list[Body]:
    return [{"type": kind, "text": part} for part in _split(text, random)]


def _messages_split(text: str, random: Random) -> tuple[Endpoint, Body]:
    first, second = _split(text, random)
    messages = [{"role": "user", "content": first}, {"role": "user", "content": second}]
    return "chat", {"model": "out", "messages": messages}


def _turns(*messages: Body) -> tuple[Endpoint, Body]:
    return "chat", {"model": "out", "messages": [{"role": "user", "content": "go"}, *messages]}


def _call(arguments: str) -> Body:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _tool(**function: object) -> list[Body]:
    return [{"type": "function", "function": {"name": "f", **function}}]


def _messages_api(content: object, **more: object) -> tuple[Endpoint, Body]:
    return "messages", {"model": "out", "max_tokens": 9, "messages": [{"role": "user", "content": content}], **more}


def _tool_result(text: str, random: Random) -> tuple[Endpoint, Body]:
    return _messages_api([{"type": "tool_result", "tool_use_id": "t", "content": _parts(text, random)}])


def _item(text: str, random: Random) -> tuple[Endpoint, Body]:
    return "responses", {"model": "out", "input": [{"role": "user", "content": _parts(text, random, "input_text")}]}


def _output(text: str, _: Random) -> tuple[Endpoint, Body]:
    return "responses", {"model": "out", "input": [{"type": "function_call_output", "call_id": "c", "output": text}]}


FIELDS: dict[str, Callable[[str, Random], tuple[Endpoint, Body]]] = {
    "message": lambda text, _: _chat(text),
    "system": lambda text, _: _turns({"role": "system", "content": text}),
    "part": lambda text, _: _chat([{"type": "text", "text": text}]),
    "split over parts": lambda text, random: _chat(_parts(text, random)),
    "split over messages": _messages_split,
    "name": lambda text, _: _turns({"role": "user", "name": text, "content": "x"}),
    "tool result": lambda text, _: _turns({"role": "tool", "tool_call_id": "a", "content": text}),
    "tool arguments": lambda text, _: _turns(_call(text)),
    "tool description": lambda text, _: _chat("x", tools=_tool(description=text)),
    "tool schema": lambda text, _: _chat("x", tools=_tool(parameters={"properties": {text: {"type": "string"}}})),
    "metadata": lambda text, _: _chat("x", metadata={"note": text}),
    "metadata key": lambda text, _: _chat("x", metadata={text: "x"}),
    "user": lambda text, _: _chat("x", user=text),
    "stop": lambda text, _: _chat("x", stop=[text]),
    "response schema": lambda text, _: _chat(
        "x", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": text}}}
    ),
    "unknown field": lambda text, _: _chat("x", guided_choice=[[text]]),
    "prompt": lambda text, _: ("completions", {"model": "out", "prompt": text}),
    "prompts": lambda text, random: ("completions", {"model": "out", "prompt": [*_split(text, random)]}),
    "suffix": lambda text, _: ("completions", {"model": "out", "prompt": "x", "suffix": text}),
    "embedding": lambda text, random: ("embeddings", {"model": "out", "input": ["x", *_split(text, random)]}),
    "input": lambda text, _: ("responses", {"model": "out", "input": text}),
    "instructions": lambda text, _: ("responses", {"model": "out", "input": "x", "instructions": text}),
    "item": _item,
    "item output": _output,
    "Anthropic system": lambda text, random: _messages_api("x", system=_parts(text, random)),
    "Anthropic tool result": _tool_result,
    "Anthropic tool use": lambda text, _: _messages_api(
        [{"type": "tool_use", "id": "t", "name": "f", "input": {"rows": [{"value": text}]}}]
    ),
    "Anthropic document": lambda text, _: _messages_api(
        [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}]
    ),
}
"""Each field with a body that holds the text there, and its endpoint."""
