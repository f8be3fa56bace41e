"""The ASGI application: a guard around the control API that checks Host and handles unexpected errors.

It serves what is requested about once a second or less. Requests to inference routes do not come here, unless their
method or spelling is wrong: proxy/entry/frontend.py answers them without ASGI.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.client.replies import refusal_reply
from spillway_router.proxy.entry.frontend import ROUTES, headers_by_name, host_flaw

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("spillway.proxy")

_INFERENCE = frozenset(path.decode() for path in ROUTES)


def build(control: App) -> App:
    """Return the control API behind its guard."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await control(scope, receive, send)
            return
        refusal = host_flaw(headers_by_name(scope["headers"])) or _wrong_method(scope)
        if refusal is not None:
            await _refuse(send, refusal)
            return
        started = False

        async def note_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await control(scope, receive, note_start)
        except Exception:
            log.exception("unexpected error on %s", scope["path"])
            if started:
                raise
            message = "An unexpected error happened in the router; its log has the details."
            await _refuse(send, Refusal(500, "internal_error", message))

    return app


def _wrong_method(scope: Scope) -> Refusal | None:
    if scope["path"] not in _INFERENCE:
        return None
    if scope["method"] == "POST":  # the frontend compares raw paths, so this one was written with escapes
        return Refusal(404, "not_found", f"Write the path without escapes: {scope['path']}.")
    return Refusal(405, "invalid_request", f"Use POST for {scope['path']}.")


async def _refuse(send: Send, refusal: Refusal) -> None:
    status, lines, body = refusal_reply(refusal, [b"allow: POST\r\n"] if refusal.status == 405 else [])
    pairs = (line.rstrip(b"\r\n").partition(b": ") for line in lines)
    headers = [(name, value) for name, _, value in pairs]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
