"""Replies as bytes: errors, header lines, status lines."""

from __future__ import annotations

import math
from http import HTTPStatus

import orjson

from spillway_router.core.routing.model import Backend, Endpoint, Refusal
from spillway_router.proxy.client.error_shapes import error_body

Lines = list[bytes]
"""Header lines, each with its CRLF."""

STATUS_LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
JSON = b"content-type: application/json\r\n"
SSE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


def request_id_lines(endpoint: Endpoint, request_id: str) -> bytes:
    """Header lines with the request's id. Anthropic's libraries read it under their own name."""
    name = request_id.encode("ascii")
    if endpoint == "messages":
        return b"x-request-id: %b\r\nrequest-id: %b\r\n" % (name, name)
    return b"x-request-id: %b\r\n" % name


def naming_headers(backend: Backend) -> bytes:
    """Header lines that name a backend in answers."""
    return naming_lines(backend.name, backend.model)


def naming_lines(backend: str, model: str) -> bytes:
    """Header lines with the names of a backend and its model. A model's name may hold any character, a header may
    not."""
    printable = "".join(c if c.isprintable() else "?" for c in model).encode("ascii", "replace")
    return b"x-spillway-backend: %b\r\nx-spillway-model: %b\r\n" % (backend.encode(), printable)


def refusal_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """`retry-after` in whole seconds (at most 60) and `x-should-retry`."""
    headers: list[tuple[bytes, bytes]] = []
    if refusal.retry_after_s is not None:
        seconds = min(60, max(1, math.ceil(refusal.retry_after_s)))
        headers.append((b"retry-after", str(seconds).encode()))
    if refusal.final:
        headers.append((b"x-should-retry", b"false"))
    return headers


def refusal_reply(refusal: Refusal, base_headers: Lines, endpoint: Endpoint | None = None) -> tuple[int, Lines, bytes]:
    """Status, header lines and body of an error in the shape of `endpoint`. `base_headers` are header lines of every
    answer."""
    headers = [b"%b: %b\r\n" % header for header in refusal_headers(refusal)]
    return refusal.status, [JSON, *base_headers, *headers], orjson.dumps(error_body(refusal, endpoint))
