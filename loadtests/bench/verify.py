"""Checks that an answer is complete and correct: a proxy that is fast because it loses events must not look good."""

from __future__ import annotations

import orjson

from loadtests.bench.directive import event_text
from loadtests.bench.stub_answers import REPLY_TEXT


def check_whole(status: int, body: bytes) -> str:
    """Return what is wrong with a non-stream answer; empty when it is the stub's, with usage."""
    if status != 200:
        return f"status {status}"
    try:
        answer = orjson.loads(body)
        text = answer["choices"][0]["message"]["content"]
        total = answer["usage"]["total_tokens"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return "not a chat completion"
    if text != REPLY_TEXT:
        return "text differs"
    return "" if total == 400 else "usage differs"


def check_stream(status: int, body: bytes, events: int, event_bytes: int = 0) -> str:
    """Return what is wrong with a streamed answer; empty when all events are there in order, with finish, usage,
    [DONE].
    """
    if status != 200:
        return f"status {status}"
    data = [part[6:] for part in body.replace(b"\r\n", b"\n").split(b"\n\n") if part.startswith(b"data: ")]
    if not data or data[-1] != b"[DONE]":
        return "no [DONE] at the end"
    text: list[str] = []
    finished = False
    usage = False
    try:
        for part in data[:-1]:
            event = orjson.loads(part)
            if "error" in event:
                return "error event"
            usage = usage or bool(event.get("usage"))
            for choice in event["choices"]:
                text.append(choice["delta"].get("content") or "")
                finished = finished or choice.get("finish_reason") == "stop"
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return "bad event"
    if "".join(text) != "".join(event_text(number, event_bytes) for number in range(events)):
        return "events lost, doubled or out of order"
    if not finished:
        return "no finish_reason"
    return "" if usage else "no usage"
