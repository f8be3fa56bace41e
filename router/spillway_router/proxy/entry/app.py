"""The ASGI application: a guard around the control API that checks Host and handles unexpected errors.

It serves what is requested about once a second or less. Requests to inference routes do not come here, unless their
method or spelling is wrong: proxy/entry/frontend.py answers them without ASGI.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.client.error_shapes import endpoint_of
from spillway_router.proxy.client.replies import refusal_reply
from spillway_router.proxy.entry.cors import cors_headers, preflight_headers
from spillway_router.proxy.entry.frontend import headers_by_name, host_flaw
from spillway_router.proxy.entry.targets import PROBES, ROUTES, usual_spelling
from spillway_router.proxy.request.body_memory import HELD_BODY, BodyMemory, HeldBody
from spillway_router.proxy.request.hint_names import query_flaw

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_INFERENCE = frozenset(path.decode() for path in ROUTES)
_INFERENCE_METHODS = b"POST, OPTIONS"
_PROTECTION = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
}
"""Headers of every answer that does not set its own: nothing here may be framed, guessed at, or named elsewhere."""
_ANSWERED_OPTIONS = _INFERENCE | {"*"}
"""Paths whose OPTIONS the guard answers; the control API answers the others."""


def build(control: App, bodies: BodyMemory, cors_origins: Callable[[], Collection[str]] = frozenset) -> App:
    """Return the control API behind its guard. `bodies` counts what its bodies take until their requests end;
    `cors_origins` returns the origins whose pages may call the router."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await control(scope, receive, send)
            return
        headers = headers_by_name(scope["headers"])
        scope = _as_documented(scope)
        origins = cors_origins()
        if scope["method"] == "OPTIONS" and (preflight := preflight_headers(origins, headers)):
            await _reply(send, 204, preflight)
            return
        for_origin = cors_headers(origins, headers) if origins else []
        refusal = _host_flaw(scope, headers) or _wrong_method(scope) or _query_flaw(scope)
        if refusal is not None:
            await _refuse(send, refusal, scope["path"], for_origin)
            return
        if scope["method"] == "OPTIONS" and scope["path"] in _ANSWERED_OPTIONS:
            methods = _INFERENCE_METHODS if scope["path"] in _INFERENCE else b"GET, HEAD, POST, OPTIONS"
            await _reply(send, 204, [(b"allow", methods), *for_origin])
            return
        started = False
        held = scope[HELD_BODY] = HeldBody(bodies)

        async def note_start(message: Message) -> None:
            nonlocal started
            if not started:
                started = True
                message["headers"] = _protected([*message.get("headers", ()), *for_origin])
            await send(message)

        try:
            await control(scope, receive, note_start)
        except ClientDisconnect:  # while its body was arriving
            return
        except Exception as error:
            UNEXPECTED.note("control", error, "unexpected error on %s", scope["path"])
            if started:
                raise
            message = "An unexpected error happened in the router; its log has the details."
            await _refuse(send, Refusal(500, "internal_error", message), scope["path"], for_origin)
        finally:
            held.give_back()

    return app


def _as_documented(scope: Scope) -> Scope:
    """Return the scope with its path as documented, and with GET for HEAD: uvicorn leaves the answer's body out."""
    path, method = usual_spelling(scope["path"]), scope["method"]
    return {**scope, "path": path, "method": "GET" if method == "HEAD" else method}


def _host_flaw(scope: Scope, headers: Mapping[str, str]) -> Refusal | None:
    """Return a 400 unless exactly one valid Host was sent. HTTP/1.0 knows no Host, and no browser speaks it."""
    if scope["http_version"] == "1.0" and scope["path"] in PROBES and "host" not in headers:
        return None
    return host_flaw(headers)


def _query_flaw(scope: Scope) -> Refusal | None:
    """Return a 400 for a hint in the query of what may be sent on, and for a NUL in the path or the query: no name or
    id has one, and databases reject it as a text."""
    query = scope["query_string"]
    if "\0" not in scope["path"] and b"%00" not in query and b"\0" not in query:
        return query_flaw(query) if query and scope["method"] == "POST" else None
    return Refusal(400, "invalid_request", "The path and the query must not contain a NUL character.")


def _wrong_method(scope: Scope) -> Refusal | None:
    if scope["path"] not in _INFERENCE or scope["method"] == "OPTIONS":
        return None
    if scope["method"] == "POST":  # the frontend compares raw paths, so this one was written with escapes
        return Refusal(404, "not_found", f"Write the path without escapes: {scope['path']}.")
    return Refusal(405, "invalid_request", f"Use POST for {scope['path']}.")


def _protected(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    names = {name for name, _ in headers}
    return [*headers, *((name, value) for name, value in _PROTECTION.items() if name not in names)]


async def _refuse(send: Send, refusal: Refusal, path: str, more: list[tuple[bytes, bytes]]) -> None:
    status, lines, body = refusal_reply(refusal, [], endpoint_of(path))
    pairs = (line.rstrip(b"\r\n").partition(b": ") for line in lines)
    headers = [*((name, value) for name, _, value in pairs), *more]
    if status == 405:
        headers.append((b"allow", _INFERENCE_METHODS))
    await _reply(send, status, headers, body)


async def _reply(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    if status != 204:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": _protected(headers)})
    await send({"type": "http.response.body", "body": body})
