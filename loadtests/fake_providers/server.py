"""The tills over HTTP/1.1, on plain asyncio streams: a test must be able to hang up at any byte.

`POST /NAME/v1/{chat/completions,completions,embeddings}`. The text of the request is a JSON object that says, per till,
what to do (a till without a plan answers with the defaults):

    {"NAME": {"do": "answer", "prompt": 40, "cached": 8, "out": 12, "reasoning": 3, "step": 4, "pause": 0.001}}

    answer   tokens as told, at most as many as the text has bytes and `max_tokens` (times `n`) allows; `step` tokens
             per event; `pause` seconds before the answer and between events; "usage": false leaves the usage out
    busy     429, not billed                     broken   500, not billed
    gateway  502 after the work, billed          late     504 after the work, billed
    drop     the connection closes after the     garbage  200 that is no JSON, billed
             work, billed                        cut      the stream ends after half of it, which is billed
    refused  200 with an error event first, not billed

Whoever hangs up is billed by the till's `on_cancel`. `PUT /tills` adds tills, `GET /bill?from=N` are the bill's lines.
`/engine` is a local engine: free, its answers have logprobs that say it is unsure; `/health` and `/metrics` are its.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loadtests.fake_providers.bill import Bill, Price, Till, Tokens

ENGINE = "engine"
_UNSURE = {"content": [{"token": "x", "logprob": -2.0, "bytes": None, "top_logprobs": []}] * 2}
_BILLED_FAILURES = ("gateway", "late", "drop", "garbage")
_ERRORS = {"busy": 429, "broken": 500, "gateway": 502, "late": 504}
_METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.0
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A call with what it takes. `to`: name of the till, `till` None: the free engine."""

    to: str
    till: Till | None
    endpoint: str
    caller_id: str
    stream: bool
    do: str
    tokens: Tokens
    step: int
    pause: float
    usage: bool


class Tills:
    """All tills of one process, and their bill."""

    def __init__(self) -> None:
        self.tills: dict[str, Till] = {}
        self.bill = Bill()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
        with contextlib.suppress(*gone, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        writer.transport.abort() if writer.is_closing() else writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "GET" or path == "/tills":
            writer.write(_whole(200, self._control(method, path, body)))
        else:
            call = self._call(path, headers.get("x-client-request-id", ""), json.loads(body))
            if not await self._answer(call, reader, writer):
                return False
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def _control(self, method: str, path: str, body: bytes) -> bytes:
        if method == "PUT":
            for name, till in json.loads(body).items():
                self.tills[name] = Till(Price(**till["price"]), till["on_cancel"], till["most_out"])
        if path.startswith("/bill"):
            return json.dumps(self.bill.lines[int(path.partition("from=")[2] or 0) :]).encode()
        return _METRICS if path.endswith("/metrics") else b"{}"

    def _call(self, path: str, caller_id: str, body: dict[str, Any]) -> Call:
        _, to, _, endpoint = path.split("/", 3)
        till = self.tills.get(to)
        text = (
            body["messages"][-1]["content"] if endpoint == "chat/completions" else body.get("prompt", body.get("input"))
        )
        plan = {"do": "answer", **_plans(text).get(to, {})}
        most = 1000 if till is None else till.most_out
        asked = body.get("max_completion_tokens") or body.get("max_tokens") or most
        prompt = min(plan.get("prompt", 20), len(str(text).encode()))
        out = 0 if endpoint == "embeddings" else min(plan.get("out", 5), asked, most) * body.get("n", 1)
        return Call(
            to,
            till,
            endpoint,
            caller_id,
            body.get("stream", False),
            plan["do"],
            Tokens(prompt, min(plan.get("cached", 0), prompt), out, min(plan.get("reasoning", 0), out)),
            plan.get("step", 1),
            plan.get("pause", 0.0),
            plan.get("usage", True),
        )

    async def _answer(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Do what the call asks for; False: the connection is to be closed."""
        await asyncio.sleep(call.pause)
        if call.do in ("busy", "broken"):
            writer.write(_whole(_ERRORS[call.do], b'{"error": {"message": "as told"}}'))
            return True
        if call.do == "refused" and call.stream:
            writer.write(_STREAM + _chunk(b'data: {"error": {"message": "as told", "code": 400}}\n\n') + b"0\r\n\r\n")
            return True
        if _left(reader):
            self._charge(call, call.tokens.out // 2, cancelled=True)
            return False
        if call.stream and call.do not in _BILLED_FAILURES:
            return await self._stream(call, reader, writer)
        self._charge(call, call.tokens.out)
        if call.do == "drop":
            return False
        if call.do == "garbage":
            writer.write(_whole(200, b'{"choices": [{'))
        elif call.do in _ERRORS:
            writer.write(_whole(_ERRORS[call.do], b'{"error": {"message": "as told"}}'))
        else:
            writer.write(_whole(200, json.dumps(_completion(call)).encode()))
        return True

    async def _stream(self, call: Call, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(_STREAM)
        out, end = 0, call.tokens.out // 2 if call.do == "cut" else call.tokens.out
        while out < end:
            if _left(reader):
                self._charge(call, out, cancelled=True)
                return False
            step = min(call.step, end - out)
            out += step
            writer.write(_chunk(_event({"content": "x" * step}, call.endpoint)))
            await writer.drain()
            await asyncio.sleep(call.pause)
        if call.do == "cut" and end:
            self._charge(call, out)
            return False
        self._charge(call, call.tokens.out)  # the work is done, whoever is still there to hear of it
        for last in _last(call):
            writer.write(_chunk(last))
        writer.write(b"0\r\n\r\n")
        return True

    def _charge(self, call: Call, out: int, *, cancelled: bool = False) -> None:
        if call.till is not None:
            stops = cancelled and call.till.on_cancel == "stops"
            nano = call.till.price.nano(call.tokens.first(out) if stops else call.tokens)
            if call.do == "cut" and not cancelled:
                nano = call.till.price.nano(call.tokens.first(out))
            self.bill.charge(call.to, call.caller_id, nano)


def _plans(text: object) -> dict[str, Any]:
    """What the text tells the tills; others' texts tell them nothing."""
    try:
        found = json.loads(str(text))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _left(reader: asyncio.StreamReader) -> bool:
    return reader.at_eof() or reader.exception() is not None


def _whole(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        status,
        len(body),
        body,
    )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _event(delta: dict[str, Any], endpoint: str, finish: str | None = None) -> bytes:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if endpoint == "completions":
        choice["text"] = delta.get("content", "")
    else:
        choice["delta"] = delta
    return b"data: %b\n\n" % json.dumps({"object": "chunk", "choices": [choice]}).encode()


def _last(call: Call) -> Iterator[bytes]:
    yield _event({}, call.endpoint, "stop")
    if call.usage:
        yield b"data: %b\n\n" % json.dumps({"object": "chunk", "choices": [], "usage": _usage(call)}).encode()
    yield b"data: [DONE]\n\n"


def _usage(call: Call) -> dict[str, Any]:
    return {
        "prompt_tokens": call.tokens.prompt,
        "completion_tokens": call.tokens.out,
        "prompt_tokens_details": {"cached_tokens": call.tokens.cached},
        "completion_tokens_details": {"reasoning_tokens": call.tokens.reasoning},
    }


def _completion(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = {"id": "x", "usage": _usage(call)} if call.usage else {"id": "x"}
    if call.endpoint == "embeddings":
        return {**body, "data": [{"index": 0, "embedding": [0.0]}]}
    text: dict[str, Any] = {"message": {"role": "assistant", "content": "x"}}
    if call.endpoint == "completions":
        text = {"text": "x"}
    if call.till is None:
        text["logprobs"] = _UNSURE
    return {**body, "choices": [{"index": 0, "finish_reason": "stop", **text}]}
