"""The ASGI side, for everything asked once a second or less: guard (Host, last-resort error) -> control API.

Inference routes don't come here: proxy/entry/frontend.py answers them before ASGI begins, unless their method or
spelling is wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spillway_router.core.routing.model import Refusal
from spillway_router.proxy.client.replies import refusal_reply
from spillway_router.proxy.entry.frontend import ROUTES, bad_host, named

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("spillway.proxy")

_INFERENCE = frozenset(path.decode() for path in ROUTES)


def build(control: App) -> App:
    """The control API behind its guard."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await control(scope, receive, send)
            return
        refusal = bad_host(named(scope["headers"])) or _wrong_method(scope)
        if refusal is not None:
            await _refuse(send, refusal)
            return
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await control(scope, receive, noting)
        except Exception:
            log.exception("unexpected error on %s", scope["path"])
            if begun:
                raise
            message = "An unexpected error happened in the router; its log has the details."
            await _refuse(send, Refusal(500, "internal_error", message))

    return app


def _wrong_method(scope: Scope) -> Refusal | None:
    if scope["path"] not in _INFERENCE:
        return None
    if scope["method"] == "POST":  # spelled with escapes: the front knows it as written only
        return Refusal(404, "not_found", f"Write the path as it is: {scope['path']}.")
    return Refusal(405, "invalid_request", f"Use POST for {scope['path']}.")


async def _refuse(send: Send, refusal: Refusal) -> None:
    status, lines, body = refusal_reply(refusal, [b"allow: POST\r\n"] if refusal.status == 405 else [])
    pairs = (line.rstrip(b"\r\n").partition(b": ") for line in lines)
    headers = [(name, value) for name, _, value in pairs]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
