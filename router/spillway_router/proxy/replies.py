"""What the client gets: headers, error bodies and the ASGI sends. One Reply object per request keeps their order."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from spillway_router.core.model import Refusal

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Headers = list[tuple[bytes, bytes]]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
JSON = (b"content-type", b"application/json")
SSE = (b"content-type", b"text/event-stream; charset=utf-8")


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The OpenAI error shape."""
    kind = _TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_event(code: str, message: str) -> bytes:
    """An error inside a stream that has begun: the nested shape is the one that every SDK raises on."""
    return b"data: " + orjson.dumps(error_body(502, code, message)) + b"\n\n"


def refusal_headers(refusal: Refusal) -> Headers:
    """retry-after in whole seconds (at most 60) and x-should-retry."""
    headers: Headers = []
    if refusal.retry_after_s is not None:
        seconds = min(60, max(1, math.ceil(refusal.retry_after_s)))
        headers.append((b"retry-after", str(seconds).encode()))
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    return headers


class ClientReply:
    """The answer to one client; knows whether it has begun."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Status, headers and body at once."""
        self.started = True
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: Refusal, headers: Headers) -> None:
        """An error with its OpenAI shape."""
        body = orjson.dumps(error_body(refusal.status, refusal.code, refusal.message, refusal.param))
        await self.whole(refusal.status, [JSON, *headers, *refusal_headers(refusal)], body)

    async def begin_stream(self, headers: Headers) -> None:
        """The 200 of a stream."""
        self.started = True
        fixed = [SSE, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": [*fixed, *headers]})

    async def chunk(self, data: bytes) -> None:
        """Part of a stream; waits while the client reads slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes = b"") -> None:
        """The clean end of a stream."""
        await self._send({"type": "http.response.body", "body": data})
