"""The fake providers over HTTP/1.1, on plain asyncio streams, so that a call can be cut off at any byte.

`POST /NAME/v1/{chat/completions,completions,embeddings}`. The text of the request is a JSON object that says, for each
provider, what to do (a provider that is not named answers with the defaults):

    {"NAME": {"do": "answer", "prompt": 40, "cached": 8, "out": 12, "reasoning": 3, "step": 4, "pause": 0.001}}

    answer   so many tokens, at most as many as the text has bytes and `max_tokens` (times `n`) allows; `step` tokens
             per event; `pause` seconds before the answer and between events; "usage": false leaves the usage out
    busy     429, not billed                     broken   500, not billed
    gateway  502 after the work, billed          late     504 after the work, billed
    drop     the connection closes after the     garbage  200 with a body that is not JSON, billed
             work, billed                        cut      the stream ends after half of it, which is billed
    refused  200 with an error event first, not billed

A caller that hangs up is billed by the provider's `on_cancel`. `PUT /providers` adds providers, `GET /bill?from=N`
returns the bill's lines from line N on. `/engine` is a local engine: it is free, and the log-probabilities of its
answers say that it is unsure; `/health` and `/metrics` are the engine's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadtests.fake_providers.bill import CallTokens, FakeProvider, ProviderBill, ProviderPrice
from spillway_router.testing import openai_wire as wire

ENGINE = "engine"
_UNSURE = wire.logprobs([wire.token_logprob("x", -2.0)] * 2)
_BILLED_FAILURES = ("gateway", "late", "drop", "garbage")
_ERRORS = {"busy": 429, "broken": 500, "gateway": 502, "late": 504}
_ERROR = wire.error("as told")
_STREAM_HEAD = wire.http_stream_head()


@dataclass(frozen=True, slots=True)
class ProviderCall:
    """One call and what it asks for. `provider` None: the call is for the free engine."""

    name: str
    provider: FakeProvider | None
    endpoint: str
    caller_id: str
    stream: bool
    do: str
    tokens: CallTokens
    step: int
    pause: float
    usage: bool


class FakeProviders:
    """All providers of one process, and their bill."""

    def __init__(self) -> None:
        self.providers: dict[str, FakeProvider] = {}
        self.bill = ProviderBill()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        with contextlib.suppress(*gone, asyncio.CancelledError):
            while await self._serve_one(reader, writer):
                pass
        writer.transport.abort() if writer.is_closing() else writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "GET" or path == "/providers":
            writer.write(wire.http_answer(200, self._control(method, path, body)))
        else:
            call = self._call(path, headers.get("x-client-request-id", ""), json.loads(body))
            if not await self._answer(call, reader, writer):
                return False
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def _control(self, method: str, path: str, body: bytes) -> bytes:
        if method == "PUT":
            for name, fields in json.loads(body).items():
                price = ProviderPrice(**fields["price"])
                self.providers[name] = FakeProvider(price, fields["on_cancel"], fields["most_out"])
        if path.startswith("/bill"):
            return wire.dump(self.bill.lines[int(path.partition("from=")[2] or 0) :])
        return wire.IDLE_METRICS if path.endswith("/metrics") else b"{}"

    def _call(self, path: str, caller_id: str, body: dict[str, Any]) -> ProviderCall:
        _, name, _, endpoint = path.split("/", 3)
        provider = self.providers.get(name)
        text = (
            body["messages"][-1]["content"] if endpoint == "chat/completions" else body.get("prompt", body.get("input"))
        )
        order = {"do": "answer", **_orders(text).get(name, {})}
        most = 1000 if provider is None else provider.most_out
        allowed = body.get("max_completion_tokens") or body.get("max_tokens") or most
        prompt = min(order.get("prompt", 20), len(str(text).encode()))
        out = 0 if endpoint == "embeddings" else min(order.get("out", 5), allowed, most) * body.get("n", 1)
        return ProviderCall(
            name=name,
            provider=provider,
            endpoint=endpoint,
            caller_id=caller_id,
            stream=body.get("stream", False),
            do=order["do"],
            tokens=CallTokens(
                prompt=prompt,
                cached=min(order.get("cached", 0), prompt),
                out=out,
                reasoning=min(order.get("reasoning", 0), out),
            ),
            step=order.get("step", 1),
            pause=order.get("pause", 0.0),
            usage=order.get("usage", True),
        )

    async def _answer(self, call: ProviderCall, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Do what the call asks for; return whether the connection may carry another call."""
        await asyncio.sleep(call.pause)
        if call.do in ("busy", "broken"):
            writer.write(wire.http_answer(_ERRORS[call.do], wire.dump(_ERROR)))
            return True
        if call.do == "refused" and call.stream:
            error = wire.event(wire.error("as told", code=400))
            writer.write(_STREAM_HEAD + wire.http_chunk(error) + wire.LAST_CHUNK)
            return True
        if _caller_left(reader):
            self._charge(call, call.tokens.out // 2, cancelled=True)
            return False
        if call.stream and call.do not in _BILLED_FAILURES:
            return await self._stream(call, reader, writer)
        self._charge(call, call.tokens.out)
        if call.do == "drop":
            return False
        if call.do == "garbage":
            writer.write(wire.http_answer(200, b'{"choices": [{'))
        elif call.do in _ERRORS:
            writer.write(wire.http_answer(_ERRORS[call.do], wire.dump(_ERROR)))
        else:
            writer.write(wire.http_answer(200, wire.dump(_whole(call))))
        return True

    async def _stream(self, call: ProviderCall, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(_STREAM_HEAD)
        out, end = 0, call.tokens.out // 2 if call.do == "cut" else call.tokens.out
        while out < end:
            if _caller_left(reader):
                self._charge(call, out, cancelled=True)
                return False
            step = min(call.step, end - out)
            out += step
            writer.write(wire.http_chunk(_event({"content": "x" * step}, call.endpoint)))
            await writer.drain()
            await asyncio.sleep(call.pause)
        if call.do == "cut" and end:
            self._charge(call, out)
            return False
        self._charge(call, call.tokens.out)  # the work is done, even if the caller has left
        for last in _last_events(call):
            writer.write(wire.http_chunk(last))
        writer.write(wire.LAST_CHUNK)
        return True

    def _charge(self, call: ProviderCall, out: int, *, cancelled: bool = False) -> None:
        if call.provider is None:
            return
        stops = cancelled and call.provider.on_cancel == "stops"
        was_cut = call.do == "cut" and not cancelled
        tokens = call.tokens.first(out) if stops or was_cut else call.tokens
        self.bill.charge(call.name, call.caller_id, call.provider.price.nano(tokens))


def _orders(text: object) -> dict[str, Any]:
    """Return what the text orders from each provider; a text that is not a JSON object orders nothing."""
    try:
        orders = json.loads(str(text))
    except ValueError:
        return {}
    return orders if isinstance(orders, dict) else {}


def _caller_left(reader: asyncio.StreamReader) -> bool:
    return reader.at_eof() or reader.exception() is not None


def _event(delta: dict[str, Any], endpoint: str, finish: str | None = None) -> bytes:
    if endpoint == "completions":
        choice = wire.text_choice(delta.get("content", ""), finish)
    else:
        choice = wire.delta_choice(delta, finish)
    return wire.event({"object": "chunk", "choices": [choice]})


def _last_events(call: ProviderCall) -> Iterator[bytes]:
    yield _event({}, call.endpoint, "stop")
    if call.usage:
        yield wire.event({"object": "chunk", "choices": [], "usage": _usage(call)})
    yield wire.DONE


def _usage(call: ProviderCall) -> dict[str, Any]:
    tokens = call.tokens
    return wire.usage(tokens.prompt, tokens.out, cached_tokens=tokens.cached, reasoning_tokens=tokens.reasoning)


def _whole(call: ProviderCall) -> dict[str, Any]:
    body: dict[str, Any] = {"id": "x", "usage": _usage(call)} if call.usage else {"id": "x"}
    if call.endpoint == "embeddings":
        return {**body, "data": [{"index": 0, "embedding": [0.0]}]}
    logprobs = _UNSURE if call.provider is None else None
    if call.endpoint == "completions":
        choice = wire.text_choice("x", "stop", logprobs)
    else:
        choice = wire.message_choice({"content": "x"}, "stop", logprobs)
    return {**body, "choices": [choice]}
