"""An upstream that repeats in every answer the keys that it was called with, in all spellings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from evidence.secrets.canaries import spellings
from spillway_router.testing import Answer, Arrival
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.streams import data, delta

CREDENTIALS: Final = ("authorization", "x-api-key", "x-gateway-token")
_CASE: Final = re.compile(rb"case-([a-z0-9-]+)")


def _whole(said: str) -> Answer:
    del said
    message = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
    return Answer.json({**message, "usage": wire.usage(3, 2)})


def _named(said: str) -> Answer:
    """Return a whole answer whose headers hold the key, and whose name of the model does, which the ledger records."""
    plain = said.split(" ")[0]
    headers = {"x-request-id": plain, "x-ratelimit-hint": said.split(" ")[-1], "openai-organization": plain}
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
    return Answer.json({"choices": [choice], "usage": wire.usage(3, 2), "model": plain}, 200, headers)


def _refusal(status: int) -> Callable[[str], Answer]:
    error = {"type": "invalid_request_error", "code": "invalid_api_key", "param": None}
    return lambda said: Answer.json({"error": {"message": f"Incorrect API key provided: {said}", **error}}, status)


def _event(said: str) -> Answer:
    return Answer.stream(data({"error": {"message": said}}))


def _late_event(said: str) -> Answer:
    return Answer.stream(delta({"content": "a"}) + data({"error": {"message": said}}))


CASES: Final[Mapping[str, Callable[[str], Answer]]] = {
    "whole": _whole,
    "names": _named,
    **{f"status-{status}": _refusal(status) for status in (400, 401, 403, 404, 422, 429, 500, 503)},
    "flat": lambda said: Answer.json({"detail": said, "message": said}, 422),
    "no-json": lambda said: Answer(said.encode(), 502),
    "error-in-200": lambda said: Answer.json({"error": {"message": said}}),
    "event": _event,
    "late-event": _late_event,
    "broken-event": lambda said: Answer.stream(delta({"content": "a"}) + b"data: {" + said.encode() + b"\n\n"),
    "cut": lambda _: Answer.stream(delta({"content": "a"}), end="rst"),
    "hang": lambda _: Answer.stream(delta({"content": "a"}), end="hang"),
}
"""How the upstream answers, by the case that the prompt names."""
RELAYED: Final = frozenset({"names"})
"""The cases whose body is a good answer, which is relayed as it is, so that only its head is searched."""
STREAMED: Final = frozenset({"event", "late-event", "broken-event", "cut", "hang"})


def answer(arrival: Arrival) -> Answer:
    """Return the answer to the case that a request names; a whole one for any other request."""
    match = _CASE.search(arrival.body)
    values = [arrival.headers[name].removeprefix("Bearer ") for name in CREDENTIALS if name in arrival.headers]
    said = " ".join(text for value in values for text in spellings(value)) or "nothing"
    return CASES.get(match[1].decode() if match else "", _whole)(said)
