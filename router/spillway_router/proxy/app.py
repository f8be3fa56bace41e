"""The ASGI stack, outermost first: guard (Host, in-flight bound, last-resort error) -> inference routes -> control API.

Inference routes are bare ASGI because a framework would cost as much as the whole relay (decisions/0001); everything
asked once a second or less is FastAPI's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from spillway_router.core.model import Endpoint, Refusal
from spillway_router.proxy.exchange import serve
from spillway_router.proxy.replies import ClientReply, Receive, Send
from spillway_router.proxy.services import Services

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger("spillway.proxy")

ROUTES: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
_HOST = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?$")


def build(services: Services, control: App) -> App:
    """The whole application."""
    return _guard(_inference(services, control), services)


def _inference(services: Services, control: App) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if endpoint is None:
            await control(scope, receive, send)
            return
        if scope["method"] != "POST":
            refusal = Refusal(405, "invalid_request", f"Use POST for {scope['path']}.")
            await ClientReply(send).refuse(refusal, [(b"allow", b"POST")])
            return
        await serve(services, endpoint, _headers(scope), receive, send)

    return app


def _guard(inner: App, services: Services) -> App:
    in_flight = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal in_flight
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        reply = ClientReply(send)
        refusal = _bad_host(scope)
        if refusal is None and in_flight >= services.live().limits.in_flight:
            refusal = Refusal(503, "overloaded", "Too many requests in progress here.", retry_after_s=1.0)
        if refusal is not None:
            await reply.refuse(refusal, [])
            return
        in_flight += 1
        begun = False

        async def noting(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await inner(scope, receive, noting)
        except Exception:
            log.exception("unexpected error on %s", scope["path"])
            if begun:
                raise
            message = "An unexpected error happened in the router; its log has the details."
            await reply.refuse(Refusal(500, "internal_error", message), [])
        finally:
            in_flight -= 1

    return app


def _headers(scope: Scope) -> dict[str, str]:
    """Header names in small letters -> values. One that was sent twice counts as a list, so that neither is lost."""
    sent = scope["headers"]
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}
    if len(found) != len(sent):
        for name in found:
            values = [value for known, value in sent if known.decode("latin-1") == name]
            found[name] = b", ".join(values).decode("latin-1")
    return found


def _bad_host(scope: Scope) -> Refusal | None:
    """uvicorn lets missing, repeated and invalid Host headers through; nobody honest sends them."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) == 1 and _HOST.match(hosts[0].decode("latin-1")):
        return None
    return Refusal(400, "invalid_request", "Send exactly one valid Host header.", "host")
