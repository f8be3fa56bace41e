"""The answers of providers in their exact shapes (shapes/*.yaml), and an upstream that gives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evidence.streams.protocols import QUESTION, TOOL
from spillway_router.testing import openai_wire as wire

FOLDER = Path(__file__).with_name("shapes")
DOCUMENTED = "documented.yaml"
_SCHEMA = {
    "type": "object",
    "properties": {"at": {"type": "string"}},
    "required": ["at"],
    "additionalProperties": False,
}
_FUNCTION = {"name": TOOL, "description": "Look something up.", "parameters": _SCHEMA, "strict": True}
TOOLS: Mapping[str, list[dict[str, Any]]] = {
    "look_up": [{"type": "function", "function": _FUNCTION}],
    "look_up_flat": [{"type": "function", **_FUNCTION}],
    "look_up_input": [{"name": TOOL, "description": "Look something up.", "input_schema": _SCHEMA}],
}
"""The tools that requests name, in the form of each protocol."""
_OBJECTS = {"chat": ("chat.completion", "chat.completion.chunk"), "completions": ("text_completion", "text_completion")}
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to one provider and its answer, whole (None: only streamed) and as the bodies of its events.

    `events_with_usage` are those of a stream that was asked for usage, `events_with_usage_throughout` those of one that
    was asked for it in every event. `refused` says why the router refuses this request on purpose.
    """

    provider: str
    backend: str
    name: str
    endpoint: str
    request: Mapping[str, Any]
    whole: Mapping[str, Any] | None
    events: Sequence[Mapping[str, Any]]
    events_with_usage: Sequence[Mapping[str, Any]]
    events_with_usage_throughout: Sequence[Mapping[str, Any]]
    not_for: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def model(self) -> str:
        """Return the name under which a client asks for it."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.provider} {self.name}".lower())

    def stream(self, options: Mapping[str, Any]) -> bytes:
        """Return the whole event stream for these `stream_options`."""
        if self.endpoint in ("responses", "messages"):
            return b"".join(wire.event(event, str(event["type"])) for event in self.events)
        events = self.events
        if options.get("include_usage"):
            events = self.events_with_usage
            if options.get("continuous_usage_stats"):
                events = self.events_with_usage_throughout
        return b"".join(wire.event(event) for event in events) + wire.DONE


def load_exchanges(folder: Path = FOLDER) -> list[Exchange]:
    """Read all exchanges of all providers."""
    files = sorted(file for file in folder.glob("*.yaml") if file.name != DOCUMENTED)
    shapes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [_exchange(shape, entry) for shape in shapes for entry in shape["exchanges"]]


def _exchange(shape: Mapping[str, Any], entry: Mapping[str, Any]) -> Exchange:
    endpoint = entry["endpoint"]
    head: dict[str, Any] = entry.get("head") or (shape["chat"] if endpoint == "chat" else {})
    whole_object, event_object = _OBJECTS.get(endpoint, ("", ""))
    event_head = {"object": event_object, **head} if event_object else {}
    whole = None
    if entry.get("only") != "stream":
        whole = {**({"object": whole_object} if whole_object else {}), **head, **entry["whole"]}
    events = [{**event_head, **event} for event in entry["stream"]]
    if endpoint == "responses":
        events = [_numbered(event, number, whole or {}) for number, event in enumerate(entry["stream"])]
    return Exchange(
        provider=shape["provider"],
        backend=shape.get("backend", shape["provider"]),
        name=entry["name"],
        endpoint=endpoint,
        request=_request(endpoint, entry.get("request", {})),
        whole=whole,
        events=events,
        events_with_usage=_with_usage(shape, entry, event_head),
        events_with_usage_throughout=[{**event_head, **event} for event in entry.get("with_usage_throughout", ())],
        not_for=entry.get("not_for", {}),
        refused=entry.get("refused", ""),
    )


def _with_usage(
    shape: Mapping[str, Any], entry: Mapping[str, Any], head: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Return the events of a stream that was asked for usage: an event with usage alone follows, unless usage comes
    anyway. `when_usage_is_asked` of the provider is what every other event has then."""
    events = [{**head, **shape.get("when_usage_is_asked", {}), **event} for event in entry["stream"]]
    if not any(event.get("usage") for event in events):
        events.append({**head, "choices": [], "usage": shape["usage"]})
    return events


def _numbered(event: Mapping[str, Any], number: int, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event of the Responses API with its number and with the response that `begun` or `whole` stands for."""
    responses = {"begun": {**whole, "status": "in_progress", "output": [], "usage": None}, "whole": whole}
    response = event.get("response")
    replaced = {"response": responses[response]} if isinstance(response, str) else {}
    return {**event, "sequence_number": number, **replaced}


def _request(endpoint: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if endpoint in ("chat", "messages"):
        asked["messages"] = [{"role": "user", "content": QUESTION}]
    else:
        asked["prompt" if endpoint == "completions" else "input"] = QUESTION
    if endpoint == "messages":
        asked["max_tokens"] = 64
    asked |= fields
    tools = asked.get("tools")
    if isinstance(tools, str):
        asked["tools"] = TOOLS[tools]
    return asked


@asynccontextmanager
async def answering(exchanges: Sequence[Exchange]) -> AsyncIterator[str]:
    """Serve the exchanges by the model that a request names, and an engine's probes; yield the base URL without /v1."""
    by_model = {exchange.model: exchange for exchange in exchanges}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length.group(1)) if length else 0)
                writer.write(_answer(by_model, head, body))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()


def _answer(by_model: Mapping[str, Exchange], head: bytes, body: bytes) -> bytes:
    if head.startswith(b"GET "):
        return _probe(head.split(b" ", 2)[1])
    if wire.PROBE_HEADER.encode() in head.lower():
        return wire.http_answer(200, wire.dump(wire.PROBED))
    asked = json.loads(body)
    exchange = by_model[asked["model"]]
    if not asked.get("stream"):
        return wire.http_answer(200, wire.dump(exchange.whole))
    stream = exchange.stream(asked.get("stream_options") or {})
    return wire.http_stream_head() + wire.http_chunk(stream) + wire.LAST_CHUNK


def _probe(path: bytes) -> bytes:
    pages = {b"/health": b"{}", b"/metrics": wire.IDLE_METRICS, b"/v1/models": b'{"object":"list","data":[]}'}
    page = pages.get(path)
    return wire.http_answer(404, b"{}", reason="Not Found") if page is None else wire.http_answer(200, page)
