"""Whole answers of the four protocols: complete enough for every client library, small enough to cut at each byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spillway_router.testing import openai_wire as wire
from spillway_router.testing.streams import named

Event = Mapping[str, Any]
QUESTION = "Which eye?"
TOOL = "look_up"
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
USAGE = wire.usage(3, 2)


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer: the protocol and content that its name states, its request, and its events.

    `content` is the index of the first event that a client can see content in. `whole` is the same answer as one JSON
    body, for the answers that are also tried without a stream.
    """

    protocol: str
    kind: str
    request: Mapping[str, Any]
    events: tuple[bytes, ...]
    content: int
    whole: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.protocol} {self.kind}"

    @property
    def path(self) -> str:
        return PATHS[self.protocol]

    @property
    def body(self) -> bytes:
        return b"".join(self.events)

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The number of bytes before each event, and of all of them."""
        sums = [0]
        for event in self.events:
            sums.append(sums[-1] + len(event))
        return tuple(sums)


# Chat


def _chat(kind: str, deltas: list[dict[str, Any]], finish: str, choices: int = 1, content: int = 1) -> Answer:
    completion = wire.Completion("c-1", "m", 1)
    parts = [
        completion.chunk([{**wire.delta_choice(delta), "index": index}])
        for delta in ({"role": "assistant", "content": ""}, *deltas)
        for index in range(choices)
    ]
    ends = [completion.chunk([{**wire.delta_choice({}, finish), "index": index}]) for index in range(choices)]
    events = [wire.event(part) for part in (*parts, *ends, completion.usage_chunk(USAGE))]
    request: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTION}]}
    if choices > 1:
        request["n"] = choices
    return Answer("chat", kind, request, events=(*events, wire.DONE), content=content)


def chat_text(word: str) -> Answer:
    """Return text in three pieces, as vLLM sends it."""
    answer = _chat("text", [{"content": f"{word} "}, {"content": "é"}, {"content": "!"}], "stop")
    choice = wire.message_choice({"content": f"{word} é!"})
    return replace(answer, whole=wire.Completion("c-1", "m", 1).whole([choice], USAGE))


def chat_scored(word: str) -> Answer:
    """Return text of six sure tokens with their log-probabilities, which a router with confidence rules holds back."""
    completion = wire.Completion("c-1", "m", 1)
    tokens = (f"{word} ", "é", "o", "u", "y", "!")
    said = [completion.said(token, logprobs=wire.logprobs([wire.token_logprob(token, -0.01)])) for token in tokens]
    parts = [completion.opening(), *said, completion.said("", "stop"), completion.usage_chunk(USAGE)]
    events = (*(wire.event(part) for part in parts), wire.DONE)
    request = {"messages": [{"role": "user", "content": QUESTION}]}
    return Answer("chat", "scored", request, events=events, content=1)


def chat_finish_with_content(word: str) -> Answer:
    """Return text whose last piece comes with the finish and the usage, as Mistral and others send it."""
    completion = wire.Completion("c-1", "m", 1)
    last = completion.chunk([wire.delta_choice({"content": "!"}, "stop")], usage=USAGE)
    parts = [completion.opening(), completion.said(f"{word} "), completion.said("é"), last]
    events = (*(wire.event(part) for part in parts), wire.DONE)
    request = {"messages": [{"role": "user", "content": QUESTION}]}
    return Answer("chat", "finish with content", request, events=events, content=1)


def chat_choices(word: str) -> Answer:
    """Return two choices that take turns."""
    return _chat("two choices", [{"content": f"{word} "}, {"content": "!"}], "stop", choices=2, content=2)


def chat_tool(word: str) -> Answer:
    """Return a tool call whose arguments arrive in pieces."""

    def call(**function: str) -> dict[str, Any]:
        return {"index": 0, "function": function}

    begun = {**call(name=TOOL, arguments=""), "id": "t-1", "type": "function"}
    deltas = [{"tool_calls": [part]} for part in (begun, call(arguments='{"at":'), call(arguments=f'"{word}"}}'))]
    return _chat("tool", deltas, "tool_calls")


def chat_reasoning(word: str) -> Answer:
    """Return reasoning before the text."""
    return _chat("reasoning", [{"reasoning_content": "Hm."}, {"content": f"{word} "}, {"content": "!"}], "stop")


# Text completions


def completions_text(word: str) -> Answer:
    """Return text in three pieces."""
    completion = wire.Completion("c-1", "m", 1, chat=False)
    said = [
        completion.said(f"{word} "),
        completion.said("é"),
        completion.said("!"),
        completion.said("", "length"),
        completion.usage_chunk(USAGE),
    ]
    events = (*(wire.event(part) for part in said), wire.DONE)
    whole = completion.whole([wire.text_choice(f"{word} é!", "length")], USAGE)
    return Answer("completions", "text", {"prompt": QUESTION}, events=events, content=0, whole=whole)


# Responses


def _response(status: str, output: list[Event], usage: Event | None = None) -> dict[str, Any]:
    return {
        "id": "r-1", "object": "response", "created_at": 1, "status": status, "model": "m", "output": output,
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": usage,
    }  # fmt: skip


RESPONSES_USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 5,
}


def _responses(kind: str, begun: Event, middle: list[dict[str, Any]], done: Event) -> Answer:
    bodies: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        *middle,
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": _response("completed", [done], RESPONSES_USAGE)},
    ]
    events = tuple(named({**body, "sequence_number": number}) for number, body in enumerate(bodies))
    whole = bodies[-1]["response"]
    return Answer("responses", kind, {"input": QUESTION}, events=events, content=3, whole=whole)


def responses_text(word: str) -> Answer:
    """Return one message with text in two pieces."""
    place = {"item_id": "m-1", "output_index": 0, "content_index": 0}

    def part(text: str) -> dict[str, Any]:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def item(status: str, content: list[Event]) -> dict[str, Any]:
        return {"id": "m-1", "type": "message", "status": status, "role": "assistant", "content": content}

    text = f"{word} é"
    middle = [
        {"type": "response.content_part.added", **place, "part": part("")},
        {"type": "response.output_text.delta", **place, "delta": f"{word} ", "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": "é", "logprobs": []},
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part(text)},
    ]
    return _responses("text", item("in_progress", []), middle, item("completed", [part(text)]))


def responses_tool(word: str) -> Answer:
    """Return a function call whose arguments arrive in pieces."""

    def item(status: str, arguments: str) -> dict[str, Any]:
        return {
            "id": "f-1", "type": "function_call", "status": status, "call_id": "t-1", "name": TOOL,
            "arguments": arguments,
        }  # fmt: skip

    arguments = f'{{"at":"{word}"}}'
    place = {"item_id": "f-1", "output_index": 0}
    kind = "response.function_call_arguments"
    middle = [
        {"type": f"{kind}.delta", **place, "delta": '{"at":'},
        {"type": f"{kind}.delta", **place, "delta": f'"{word}"}}'},
        {"type": f"{kind}.done", **place, "name": TOOL, "arguments": arguments},
    ]
    return _responses("tool", item("in_progress", ""), middle, item("completed", arguments))


# Messages


def _messages(kind: str, block: Event, deltas: list[dict[str, Any]], stop: str) -> Answer:
    message: dict[str, Any] = {
        "id": "m-1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    }  # fmt: skip
    bodies: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]
    request = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 9}
    return Answer("messages", kind, request, events=tuple(named(body) for body in bodies), content=3)


def messages_text(word: str) -> Answer:
    """Return one block of text in three pieces."""
    deltas = [{"type": "text_delta", "text": text} for text in (f"{word} ", "é", "!")]
    answer = _messages("text", {"type": "text", "text": ""}, deltas, "end_turn")
    whole = {
        "id": "m-1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": f"{word} é!"}], "stop_reason": "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    return replace(answer, whole=whole)


def messages_tool(word: str) -> Answer:
    """Return a tool call whose input arrives in pieces."""
    block = {"type": "tool_use", "id": "t-1", "name": TOOL, "input": {}}
    parts = ("", '{"at":', f'"{word}"}}')
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return _messages("tool", block, deltas, "tool_use")


_MAKERS = (
    chat_text,
    chat_tool,
    chat_choices,
    chat_reasoning,
    chat_finish_with_content,
    chat_scored,
    completions_text,
    responses_text,
    responses_tool,
    messages_text,
    messages_tool,
)
ANSWERS = {make("x").name: make for make in _MAKERS}
"""A function from a word to the answer that holds it, by the answer's name."""


def early_end(protocol: str) -> tuple[str, bytes]:
    """Return the event that ends a stream of this protocol, as a provider might send it too early, and its name."""
    if protocol == "messages":
        return "an early message_stop", named({"type": "message_stop"})
    return "an early [DONE]", wire.DONE


def error_events(protocol: str) -> Mapping[str, tuple[bytes, ...]]:
    """Return the ways in which providers of this protocol report an error within a stream, by name.

    vLLM sends the error and `[DONE]` (FACTS of its api_server); OpenAI and OpenRouter the error alone; Groq and
    Cerebras a flat one; Anthropic `event: error`; the Responses API `error` or `response.failed`.
    """
    overloaded = {"message": "engine died", "type": "server_error", "code": 500}
    plain = wire.event({"error": overloaded})
    if protocol == "messages":
        anthropic = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        return {"anthropic": (named(anthropic),), "nested": (plain,), "then done": (named(anthropic), wire.DONE)}
    if protocol == "responses":
        flat = {"type": "error", "sequence_number": 9, "code": "server_error", "message": "died", "param": None}
        failed = _response("failed", []) | {"error": {"code": "server_error", "message": "died"}}
        return {
            "error": (named(flat),),
            "failed": (named({"type": "response.failed", "sequence_number": 9, "response": failed}),),
            "nested": (plain,),
        }
    flat = {"message": "died", "type": "server_error", "param": None, "code": "server_error"}
    finish = wire.Completion("c-1", "m", 1, chat=protocol == "chat")
    return {
        "then done": (plain, wire.DONE),
        "alone": (plain,),
        "flat": (wire.event(flat),),
        "named": (wire.event(overloaded, "error"),),
        "finish error": (wire.event(finish.said("", "error")), wire.DONE),
        "finish abort": (wire.event(finish.said("", "abort")), wire.DONE),
    }


def request_body(answer: Answer, case: int, model: str, stream: bool) -> bytes:
    """Return the body of the request for case number `case`; the upstream reads the number from it."""
    marked = json.dumps(answer.request).replace(QUESTION, f"{QUESTION} case:{case}.")
    return json.dumps({"model": model, "stream": stream, **json.loads(marked)}).encode()
