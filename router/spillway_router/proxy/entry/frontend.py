"""The front: uvicorn's HTTP protocol, with the inference routes answered in place.

uvicorn serves the control API through ASGI as ever. A request to an inference route does without ASGI, whose tasks,
messages and events per request cost as much as the rest of the router (decisions/0007): its body is gathered here,
one task answers it, and a lost connection cancels that task.

    head   Host, number of requests in progress, key, content type and length are checked before a byte of the body
           is kept; after a refusal the body is read over
    body   gathered up to its bound, whole within `body_s` seconds
    turn   answers leave in the order of the requests; a pipelined request waits for the answer before its own
    out    whole answers leave by the outbox; what is written or closed past it flushes it first
    rest   a connection without a request in progress is closed after the keep-alive time. One timer per connection
           looks after it, not one per request
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from spillway_router.aio.outbox import Outbox
from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.replies import error_body
from spillway_router.proxy.exchange.exchange import Admitted, admit, serve
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.body import too_large

log = logging.getLogger("spillway.proxy")

ROUTES: dict[bytes, Endpoint] = {
    b"/v1/chat/completions": "chat",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
    b"/v1/responses": "responses",
    b"/v1/messages": "messages",
}
MOST_WAITING = 8
"""Requests that wait on one connection for the answers before theirs; then nothing more is read from it."""
FIRST_HEAD_S = 30.0
"""How long a new connection may take to send its first head."""
_HOST = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$")
_Headers = list[tuple[bytes, bytes]]


class FrontendState:
    """What all connections share: the services, the outbox, and how many inference requests are in progress."""

    __slots__ = ("in_flight", "outbox", "services")

    def __init__(self, services: Services) -> None:
        self.services = services
        self.outbox = Outbox(services.loop)
        self.in_flight = 0


class IncomingRequest(Client):
    """A request from its head to its answer."""

    __slots__ = ("counted", "parts", "size", "task", "timer", "turn", "verdict", "whole_body")

    verdict: Admitted | Refusal

    def start(self, services: Services) -> None:
        """The state at the head."""
        self.request_id = services.new_id()
        self.own = (b"x-request-id: %b\r\n" % self.request_id.encode(), services.live().opening)
        self.parts: list[bytes] = []
        self.size = 0
        self.whole_body = self.turn = self.counted = False
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None


class FrontendConnection(HttpToolsProtocol):
    """One connection of a client. Give `fronts(services)` to uvicorn as its `http`."""

    def __init__(
        self,
        gate: FrontendState,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.gate = gate
        self.answering: IncomingRequest | None = None
        """The request whose turn it is, or was last."""
        self.idle_since: float | None = None
        """When the last answer ended (loop time); None while a request is in progress."""

    # the socket

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._rest(FIRST_HEAD_S)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as HTTP/1.1, then the connection is closed
        except httptools.HttpParserError:
            self.send_400_response("This is not a valid HTTP request.")
        request = self.cycle
        if isinstance(request, IncomingRequest) and not request.whole_body and request.timer is None:
            self._bound_body(request)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        # With pipelined requests the newest, which uvicorn calls the cycle, is not the one whose turn it is.
        for cycle in (self.answering, self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, IncomingRequest):
                self._lost(cycle)

    def send_400_response(self, msg: str) -> None:
        """uvicorn would say it in plain text."""
        body = orjson.dumps(error_body(400, "invalid_request", f"{msg} Send HTTP/1.1."))
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.gate.outbox.flush()
        self.transport.write(head + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def shutdown(self) -> None:
        """The server goes down: uvicorn closes what rests."""
        self.gate.outbox.flush()
        super().shutdown()

    # head and body, as the parser finds them

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        self.idle_since = None
        path = self.url if b"?" not in self.url else self.url.partition(b"?")[0]
        endpoint = ROUTES.get(path)
        if endpoint is None or self.parser.get_method() != b"POST":
            self._control()
            return
        services = self.gate.services
        request = IncomingRequest(
            endpoint, named(self.headers), self.transport, self.flow, self.gate.outbox, self.on_response_complete
        )
        request.start(services)
        request.chunked = self.parser.get_http_version() != "1.0"
        request.keep_alive = request.chunked and self.parser.should_keep_alive() and not self.parser.should_upgrade()
        request.verdict = bad_host(request.headers) or admit(services, request.headers, self.gate.in_flight)
        if type(request.verdict) is Admitted:
            request.counted = True
            self.gate.in_flight += 1
        before, self.cycle = self.cycle, cast("Any", request)
        if before is None or before.response_complete:
            self._turn(request)
        else:
            self.pipeline.appendleft((cast("Any", request), self.app))
            if len(self.pipeline) >= MOST_WAITING:
                self.flow.pause_reading()  # a paused connection can't tell that its client left, so not before

    def _control(self) -> None:
        """Everything else goes uvicorn's way; only this one needs the ASGI scope."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        request = self.cycle
        if not isinstance(request, IncomingRequest):
            super().on_body(body)
            return
        admitted = request.verdict
        if isinstance(admitted, Refusal):
            return
        request.parts.append(body)
        request.size += len(body)
        if request.size > admitted.live.limits.body_bytes:
            self._refuse(request, too_large(admitted.live.limits.body_bytes))

    def on_message_complete(self) -> None:
        request = self.cycle
        if not isinstance(request, IncomingRequest):
            super().on_message_complete()
            return
        if request.timer is not None:
            request.timer.cancel()
        request.body = request.parts[0] if len(request.parts) == 1 else b"".join(request.parts)
        request.whole_body = True
        if request.turn:
            self._begin(request)

    def _bound_body(self, request: IncomingRequest) -> None:
        """The body did not come with the head: it has a while to."""
        if type(request.verdict) is Admitted:
            within_s = request.verdict.live.limits.body_s
            request.timer = self.loop.call_later(within_s, self._late, request, within_s)

    def _late(self, request: IncomingRequest, within: float) -> None:
        request.keep_alive = False
        self._refuse(request, Refusal(408, "invalid_request", f"The request body did not arrive within {within:g} s."))

    # its turn

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """uvicorn's next in the pipeline."""
        if isinstance(cycle, IncomingRequest):
            self._turn(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _turn(self, request: IncomingRequest) -> None:
        request.turn = True
        self.answering = request
        if isinstance(request.verdict, Refusal):
            request.refuse(request.verdict)
        elif request.whole_body:
            self._begin(request)
        elif self.expect_100_continue and request is cast("Any", self.cycle):
            self.gate.outbox.flush()
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin(self, request: IncomingRequest) -> None:
        if isinstance(request.verdict, Refusal):
            return
        task = request.task = self.loop.create_task(serve(self.gate.services, request.verdict, request))
        task.add_done_callback(partial(self._over, request))

    def _refuse(self, request: IncomingRequest, refusal: Refusal) -> None:
        """A refusal found while the body came."""
        self._leave(request)
        request.verdict = refusal
        request.parts = []
        if request.turn:
            request.refuse(refusal)

    def _over(self, request: IncomingRequest, task: asyncio.Task[None]) -> None:
        self._leave(request)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("unexpected error on %s", request.endpoint, exc_info=error)
            if not request.started:
                message = "An unexpected error happened in the router; its log has the details."
                request.refuse(Refusal(500, "internal_error", message))
        if not request.response_complete:
            request.break_off()

    def _lost(self, request: IncomingRequest) -> None:
        """The client is gone: stop the work for it."""
        request.disconnected = True
        if request.timer is not None:
            request.timer.cancel()
        if request.task is None:
            self._leave(request)
        elif not request.response_complete:
            request.task.cancel()

    def _leave(self, request: IncomingRequest) -> None:
        if request.counted:
            request.counted = False
            self.gate.in_flight -= 1

    # its end

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest(self.timeout_keep_alive)

    def _rest(self, seconds: float) -> None:
        self.idle_since = self.loop.time() + seconds - self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it rested long enough, or look again when it may have."""
        self.timeout_keep_alive_task = None
        if self.idle_since is None or self.transport.is_closing():
            return
        left = self.idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0.01:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)


def fronts(services: Services) -> Callable[..., FrontendConnection]:
    """What makes a Front for each connection of one server."""
    return partial(FrontendConnection, FrontendState(services))


def named(sent: _Headers) -> dict[str, str]:
    """Header names in small letters -> values. One that was sent twice counts as a list, so that neither is lost."""
    found = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}
    if len(found) != len(sent):
        for name in found:
            values = [value for known, value in sent if known.decode("latin-1") == name]
            found[name] = b", ".join(values).decode("latin-1")
    return found


def bad_host(headers: Mapping[str, str]) -> Refusal | None:
    """The refusal unless exactly one valid Host was sent: llhttp lets anything through; nobody honest sends it. Two are
    a list here, which is no valid one."""
    if _HOST.match(headers.get("host", "")):
        return None
    return Refusal(400, "invalid_request", "Send exactly one valid Host header.", "host")
