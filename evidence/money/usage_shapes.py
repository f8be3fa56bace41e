"""The table of usage shapes (usage_shapes.yaml) as calls: what the upstream answers, and what the ledger must say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import yaml

from spillway_router.testing import Answer
from spillway_router.testing import openai_wire as wire

TABLE = Path(__file__).with_name("usage_shapes.yaml")
PATHS: Mapping[str, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
MESSAGES = [{"role": "user", "content": "Which eye?"}]
MAX_TOKENS = 100_000
FIELDS: Mapping[str, Mapping[str, Any]] = {
    "chat": {"messages": MESSAGES, "max_tokens": MAX_TOKENS},
    "completions": {"prompt": "Which eye?", "max_tokens": MAX_TOKENS},
    "embeddings": {"input": "Which eye?"},
    "responses": {"input": "Which eye?", "max_output_tokens": MAX_TOKENS},
    "messages": {"messages": MESSAGES, "max_tokens": MAX_TOKENS},
}
MODEL = "m"
PRICES: Mapping[str, str] = {
    "input": "1",
    "output": "10",
    "cached_input": "0.1",
    "cache_write": "1.25",
    "cache_write_long": "2",
    "audio_input": "40",
    "audio_output": "80",
}
"""In USD per million tokens, all different, so that no count can stand for another."""
FEES: Mapping[str, str] = {"web_search": "0.01", "num_search_queries": "0.002", "search_context_medium": "0.008"}
_MILLION = 10**6
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call used, and what its row must say beside it."""

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
    written_long: int = 0
    reasoning: int = 0
    service: str = ""
    calls: Mapping[str, int] = field(default_factory=dict)
    audio_input: int = 0
    audio_output: int = 0
    told_usd: str | None = None
    model: str = MODEL
    status: str = "ok"
    above_hold: bool = False
    estimated: bool = False

    @property
    def charge_nano(self) -> int:
        """The price of these tokens and fees, or what the provider says itself."""
        if self.told_usd is not None:
            usd = Decimal(self.told_usd)
        else:
            tokens = {
                "input": self.prompt - self.cached - self.written - self.audio_input,
                "output": self.completion - self.audio_output,
                "audio_input": self.audio_input,
                "audio_output": self.audio_output,
                "cached_input": self.cached,
                "cache_write": self.written - self.written_long,
                "cache_write_long": self.written_long,
            }
            usd = sum((Decimal(PRICES[name]) * count for name, count in tokens.items()), Decimal(0)) / _MILLION
            usd += sum((Decimal(FEES[name]) * count for name, count in self.calls.items()), Decimal(0))
        return int((usd * _NANO).quantize(Decimal(1), ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class UsageCase:
    """One shape on one way: a whole answer or a stream."""

    name: str
    source: str
    provider: str
    path: str
    stream: bool
    answer: Answer
    expected: Expected


def load_cases(table: Path = TABLE) -> tuple[UsageCase, ...]:
    """Return the cases of the table; a shape without a stream of its own makes one of each way."""
    rows = yaml.safe_load(table.read_text(encoding="utf-8"))
    return tuple(case for row in rows for case in _cases(row))


def shape_count(cases: Sequence[UsageCase]) -> int:
    """Return the number of rows behind the cases."""
    return len({case.name for case in cases})


def _cases(row: Mapping[str, Any]) -> Iterator[UsageCase]:
    path = row.get("path", "chat")
    ways: list[tuple[bool, Answer]] = []
    if "events" in row:
        ways.append((True, _stream(path, row["events"])))
    else:
        ways.append((False, Answer.json(_whole(path, row))))
        if path != "embeddings":
            ways.append((True, _stream(path, _events(path, row))))
    for stream, answer in ways:
        yield UsageCase(
            name=row["name"],
            source=row["source"],
            provider=row.get("provider", "generic"),
            path=path,
            stream=stream,
            answer=answer,
            expected=Expected(**row["expect"]),
        )


def _whole(path: str, row: Mapping[str, Any]) -> dict[str, Any]:
    text = "left" if row.get("text", True) else ""
    body: dict[str, Any] = {"id": "x", "model": MODEL}
    if path == "chat":
        body |= {"object": "chat.completion", "choices": [wire.message_choice({"content": text})]}
    elif path == "completions":
        body |= {"object": "text_completion", "choices": [wire.text_choice(text, "stop")]}
    elif path == "embeddings":
        body |= {"object": "list", "data": [{"index": 0, "embedding": [0.5], "object": "embedding"}]}
    elif path == "responses":
        content = [{"type": "output_text", "text": text}]
        body |= {"object": "response", "status": "completed", "output": [{"type": "message", "content": content}]}
    else:
        body |= {"type": "message", "role": "assistant", "content": [{"type": "text", "text": text}]}
        body |= {"stop_reason": "end_turn"}
    body |= {} if row["usage"] is None else {"usage": row["usage"]}
    return {**body, **row.get("answer", {})}


def _events(path: str, row: Mapping[str, Any]) -> list[Any]:
    """Return the usual stream with the row's usage at its end."""
    usage, answer, text = row["usage"], row.get("answer", {}), ["text"] if row.get("text", True) else []
    if path == "responses":
        return ["created", *text, {"completed": usage, **answer}]
    if path == "messages":
        return [{"start": usage}, "block", *text, {"delta": usage}, "stop"]
    if usage is None:
        return [*text, "finish", "done"]
    return [*text, "finish", {"bare": usage, **answer}, "done"]


def _stream(path: str, events: Sequence[Any]) -> Answer:
    parts: list[bytes] = []
    for event in events:
        kind, members = (event, {}) if isinstance(event, str) else (next(iter(event)), dict(event))
        if kind == "cut":
            return Answer.stream(b"".join(parts), end="fin")
        usage = members.pop(kind, None)
        beside = {} if isinstance(event, str) else {"usage": usage}
        parts.append(_EVENTS[path](kind, usage, beside, members))
    return Answer.stream(b"".join(parts))


def _chat_event(kind: str, usage: Any, beside: dict[str, Any], more: dict[str, Any]) -> bytes:
    if kind == "done":
        return wire.DONE
    if kind == "error":
        return wire.event({"error": {"message": "Provider disconnected", "code": 502}})
    head: dict[str, Any] = {"id": "x", "object": "chat.completion.chunk", "model": MODEL, **more}
    if kind == "raw":
        return wire.event({**head, **usage})
    if kind == "bare":
        return wire.event({**head, "choices": [], **beside})
    if kind == "choice":
        return wire.event({**head, "choices": [{**wire.delta_choice({}, "stop"), "usage": usage}]})
    if kind == "groq":
        return wire.event({**head, "choices": [wire.delta_choice({}, "stop")], "x_groq": {"id": "r", "usage": usage}})
    choice = wire.delta_choice({"content": "left "}) if kind == "text" else wire.delta_choice({}, "stop")
    return wire.event({**head, "choices": [choice], **beside})


def _completions_event(kind: str, usage: Any, beside: dict[str, Any], more: dict[str, Any]) -> bytes:
    if kind in ("done", "bare", "raw", "error"):
        return _chat_event(kind, usage, beside, more)
    choice = wire.text_choice("left ") if kind == "text" else wire.text_choice("", "stop")
    return wire.event({"id": "x", "object": "text_completion", "choices": [choice], **beside})


def _responses_event(kind: str, usage: Any, _beside: dict[str, Any], more: dict[str, Any]) -> bytes:
    if kind == "text":
        return _named({"type": "response.output_text.delta", "delta": "left "})
    response: dict[str, Any] = {"id": "r", "model": MODEL, "usage": usage, "status": kind, **more}
    if kind == "failed":
        response["error"] = {"code": "server_error", "message": "The server had an error"}
    return _named({"type": f"response.{kind}", "response": response})


def _messages_event(kind: str, usage: Any, beside: dict[str, Any], _more: dict[str, Any]) -> bytes:
    beside = {} if usage is None else beside
    events: Mapping[str, dict[str, Any]] = {
        "start": {"type": "message_start", "message": {"id": "m", "model": MODEL, "content": [], **beside}},
        "block": {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "text": {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "left "}, **beside},
        "delta": {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, **beside},
        "stop": {"type": "message_stop"},
    }
    return _named(events[kind])


def _named(event: dict[str, Any]) -> bytes:
    return wire.event(event, str(event["type"]))


_EVENTS = {
    "chat": _chat_event,
    "completions": _completions_event,
    "responses": _responses_event,
    "messages": _messages_event,
}
