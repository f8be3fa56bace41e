"""Short streams of each protocol that know where their content begins and where the answer is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spillway_router.testing import openai_wire as wire

DONE = wire.DONE


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer as a list of events, with the path and the fields of its request.

    `content` is the index of the first event with content, `last` the index of the event that completes the answer.
    Indices count events from 0.
    """

    path: str
    fields: Mapping[str, Any]
    events: tuple[bytes, ...]
    content: int
    last: int

    @property
    def body(self) -> bytes:
        return b"".join(self.events)

    def end_of(self, index: int) -> int:
        """Return how many bytes the stream has up to the end of the event with this index."""
        return sum(len(event) for event in self.events[: index + 1])

    def whole_events(self, cut: int) -> int:
        """Return how many events end within the first `cut` bytes."""
        return sum(self.end_of(i) <= cut for i in range(len(self.events)))

    def fragment(self, cut: int) -> bool:
        """Return whether a cut after `cut` bytes splits an event."""
        return cut not in (0, *(self.end_of(i) for i in range(len(self.events))))


def data(value: object) -> bytes:
    """Return an unnamed event."""
    return wire.event(value)


def named(value: dict[str, Any]) -> bytes:
    """Return an event that is named by its `type`."""
    return wire.event(value, str(value["type"]))


USAGE = data({"choices": [], "usage": wire.usage(3, 2)})


def delta(content: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    """Return a chat event with this delta."""
    choice: dict[str, Any] = {"index": index, "delta": content}
    if finish is not None:
        choice["finish_reason"] = finish
    return data({"id": "c", "choices": [choice]})


def chat(word: str) -> Stream:
    """Return a chat stream: role, two pieces of text, finish, usage, [DONE]."""
    events = (
        delta({"role": "assistant", "content": ""}),
        delta({"content": word}),
        delta({"content": "!"}),
        delta({}, "stop"),
        USAGE,
        DONE,
    )
    return Stream(
        path="/v1/chat/completions",
        fields={"messages": [{"role": "user", "content": "?"}]},
        events=events,
        content=1,
        last=3,
    )


def completions(word: str) -> Stream:
    """Return a text completion: two pieces of text, the second with the finish; usage; [DONE]."""
    events = (
        data({"id": "c", "choices": [{"index": 0, "text": word}]}),
        data({"id": "c", "choices": [{"index": 0, "text": "!", "finish_reason": "length"}]}),
        USAGE,
        DONE,
    )
    return Stream(path="/v1/completions", fields={"prompt": "?"}, events=events, content=0, last=1)


def responses(word: str) -> Stream:
    """Return a stream of the Responses API: created, two deltas, completed."""
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    events = (
        named({"type": "response.created", "response": {"id": "r"}}),
        named({"type": "response.output_text.delta", "delta": word}),
        named({"type": "response.output_text.delta", "delta": "!"}),
        named({"type": "response.completed", "response": {"id": "r", "status": "completed", "usage": usage}}),
    )
    return Stream(path="/v1/responses", fields={"input": "?"}, events=events, content=1, last=3)


def messages(word: str) -> Stream:
    """Return a stream of the Messages API: start, block, delta, message_delta, stop."""
    start = {"id": "m", "content": [], "usage": {"input_tokens": 3, "output_tokens": 0}}
    text = {"type": "text_delta", "text": word}
    events = (
        named({"type": "message_start", "message": start}),
        named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        named({"type": "content_block_delta", "index": 0, "delta": text}),
        named({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        named({"type": "message_stop"}),
    )
    fields = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 9}
    return Stream(path="/v1/messages", fields=fields, events=events, content=2, last=4)


SHAPES = {"chat": chat, "completions": completions, "responses": responses, "messages": messages}
