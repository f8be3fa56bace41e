"""Replies as bytes: error bodies in the OpenAI shape, header lines, status lines."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import orjson

from spillway_router.core.routing.model import Backend, Refusal

Lines = list[bytes]
"""Header lines, each with its CRLF."""

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
STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
JSON = b"content-type: application/json\r\n"
SSE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


def error_body(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """The OpenAI error shape."""
    kind = _TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_event(code: str, message: str) -> bytes:
    """An error inside a stream that has started, in the nested shape, which every SDK raises."""
    return b"data: " + orjson.dumps(error_body(502, code, message)) + b"\n\n"


def naming_headers(backend: Backend) -> bytes:
    """Header lines that name a backend in answers. A model's name may hold any character, a header may not."""
    model = "".join(c if c.isprintable() else "?" for c in backend.model).encode("ascii", "replace")
    return b"x-spillway-backend: %b\r\nx-spillway-model: %b\r\n" % (backend.name.encode(), model)


def refusal_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """`retry-after` in whole seconds (at most 60) and `x-should-retry`."""
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after_s is not None:
        seconds = min(60, max(1, math.ceil(refusal.retry_after_s)))
        headers.append((b"retry-after", str(seconds).encode()))
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    return headers


def refusal_reply(refusal: Refusal, base_headers: Lines) -> tuple[int, Lines, bytes]:
    """Status, header lines and body of an error. `base_headers` are header lines of every answer."""
    body = orjson.dumps(error_body(refusal.status, refusal.code, refusal.message, refusal.param))
    headers = [b"%b: %b\r\n" % header for header in refusal_headers(refusal)]
    return refusal.status, [JSON, *base_headers, *headers], body
