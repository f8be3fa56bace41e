"""The frontend: uvicorn's HTTP protocol, which answers the inference routes itself.

uvicorn serves the control API through ASGI as usual. A request to an inference route bypasses ASGI, whose tasks,
messages and events per request cost as much as the rest of the router (decisions/0007). The frontend collects its
body, one task answers it, and a lost connection cancels that task.

    again  a head that its connection has sent before is not parsed again (known_head.py)
    head   bounded in bytes, lines and time. Host, number of requests in progress, key, content type and length are
           checked before any of the body is stored; after a refusal the rest of the body is discarded
    body   collected up to its size limit; it must be complete within `body_s` seconds
    turn   answers leave in the order of their requests; a pipelined request waits for the answers before its own
    out    whole answers leave through the outbox; whatever bypasses it, or closes the connection, flushes it first
    eof    a client that only ended its own sending gets its answers; one that left is told from it by a few bytes that
           HTTP lets clients ignore, which a closed socket answers with a reset
    read   a client that does not read its answer is cut off after `write_stall_s` seconds, and its place is free
    idle   a connection without a request in progress closes after the keep-alive timeout. There is one timer per
           connection, not one per request
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from spillway_router.aio.outbox import Outbox
from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.http_client.encoded import BYTE_ORDER_MARK
from spillway_router.proxy.client.http_client_connection import WAITING, HttpClientConnection
from spillway_router.proxy.client.replies import STATUS_LINES, Lines, refusal_reply, request_id_lines
from spillway_router.proxy.entry.connections import ConnectionCounts, counted_address
from spillway_router.proxy.entry.cors import cors_lines
from spillway_router.proxy.entry.known_head import KnownHead, known_head
from spillway_router.proxy.entry.targets import ROUTES, inference_path, origin_form
from spillway_router.proxy.entry.upgrade import AfterKnownHead, framing_head
from spillway_router.proxy.exchange.exchange import INTERNAL_ERROR, Admitted, admit, serve
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.body import too_large
from spillway_router.proxy.request.body_memory import UNCOUNTED_BYTES
from spillway_router.proxy.request.content_encoding import decoded, encoding_of
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.hint_names import check_trailer, query_flaw

MAX_PIPELINED = 8
"""Requests that may wait on one connection for the answers before theirs; then reading from it pauses."""
HEAD_S = 30.0
"""How long a connection may take to send a request head."""
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_TARGET_BYTES = 16 * 1024
"""Bytes of a request's path and query."""
FRAMING_FACTOR = 16
"""Bytes of chunk framing and trailers per byte of a body, beyond `MAX_HEAD_BYTES`: those of chunks of one byte."""
TASK_NAME = "request"
MOST_UNLIKE = 4
"""After so many requests in a row whose head was not that of the one before, their connection's heads are not kept."""
LEAST_READ_BYTES = 16 * 1024
"""What a client must read within `write_stall_s` seconds while more than the transport's buffer waits for it."""
MOST_DISCARDED_BYTES = 1024 * 1024
"""What is read and discarded after a head was refused, so that its sender gets the refusal."""
LAST_IDLE_S = 1
"""How long a connection must be idle before the server's end closes it: longer than a request needs that is under
way."""
LINGER_S = 5.0
"""How long the rest of a refused body is read before its connection closes."""
COLLECTED_BYTES = 256 * 1024
"""A larger body is collected in one growing buffer."""
_LARGE_DIGITS = len(str(UNCOUNTED_BYTES))
"""Digits of the length of a body that is counted. Shorter lengths need not be read."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_CHECKS_S = (0.02, 0.05, 0.1, 0.3)
"""When to look, after bytes went to a client that ended its sending, whether its socket is closed."""
_HOST = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$")
_REMEMBERED_HOSTS = 64
_Headers = list[tuple[bytes, bytes]]


class FrontendState:
    """What all connections share: the services, the outbox and the number of inference requests in progress."""

    __slots__ = (
        "_valid_hosts",
        "bodies",
        "connections",
        "in_flight",
        "in_flight_by_key",
        "is_leaving",
        "outbox",
        "services",
    )

    def __init__(self, services: Services) -> None:
        self.services = services
        self.outbox = Outbox(services.loop)
        self.in_flight = 0
        self.in_flight_by_key: dict[str, int] = {}
        self.bodies = services.bodies
        self.connections = ConnectionCounts()
        self.is_leaving = False
        """Whether the router ends soon: every answer from then on says that its connection closes."""
        self._valid_hosts: set[str] = set()

    def over_share(self, key_id: str, most: int) -> Refusal | None:
        """Return a 429 for a key that has as many requests in progress as there are places left.

        One key can thus take half of the places, two a third each: some are always left for the next one.
        """
        if self.in_flight_by_key.get(key_id, 0) < most - self.in_flight:
            return None
        message = "This key has its share of the requests that may be in progress here. Wait for some of them to end."
        return Refusal(429, "rate_limited", message, retry_after_s=1.0)

    def take_slot(self, key_id: str) -> None:
        """Count a request in."""
        self.in_flight += 1
        if key_id:
            self.in_flight_by_key[key_id] = self.in_flight_by_key.get(key_id, 0) + 1

    def give_slot_back(self, key_id: str) -> None:
        """Count a request out."""
        self.in_flight -= 1
        if key_id:
            left = self.in_flight_by_key[key_id] - 1
            if left:
                self.in_flight_by_key[key_id] = left
            else:
                del self.in_flight_by_key[key_id]

    def host_flaw(self, headers: Mapping[str, str]) -> Refusal | None:
        """Return what `host_flaw` returns. Valid hosts are remembered: there are few, and every request names one."""
        host = headers.get("host", "")
        if host in self._valid_hosts:
            return None
        flaw = host_flaw(headers)
        if flaw is None and len(self._valid_hosts) < _REMEMBERED_HOSTS:
            self._valid_hosts.add(host)
        return flaw


class IncomingRequest(HttpClientConnection):
    """A request that is being received, and its client until the answer has been sent."""

    __slots__ = (
        "admission",
        "body_complete",
        "body_timer",
        "collected",
        "has_turn",
        "holds_slot",
        "key_id",
        "parts",
        "reserved",
        "size",
        "task",
        "verdicts",
    )

    admission: Admitted | Refusal

    def start(self, services: Services) -> None:
        """Set the state of a request whose head has come."""
        self.request_id = services.new_id()
        config = services.config()
        self.base_headers = (request_id_lines(self.endpoint, self.request_id), config.policy_header)
        if config.cors_origins:
            self.base_headers = (*self.base_headers, cors_lines(config.cors_origins, self.headers))
        self.verdicts = services.verdicts
        self.parts: list[bytes] = []
        self.collected: io.BytesIO | None = None
        """A large body as far as it has come. Joining its parts at the end would stop the loop for 50 ms."""
        self.size = 0
        self.key_id = ""
        self.reserved = 0
        """Bytes that are counted for the body, of those that all bodies may take."""
        self.body_complete = self.has_turn = self.holds_slot = False
        self.body_timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None

    def refuse(self, refusal: Refusal, headers: Lines | None = None) -> None:
        if self.key_id or type(self.admission) is Admitted:  # others were counted where their key was checked
            self.verdicts.refused(self.key_id, refusal)
        super().refuse(refusal, headers)

    def _close(self) -> None:
        """Close the connection. A body that is still arriving is read on for a while first.

        A socket that is closed with unread bytes resets its connection, and the answer is lost with it.
        """
        if self.body_complete:
            self._transport.close()
            if self._transport.get_write_buffer_size():  # it would stay for as long as the client does not read
                asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
            return
        self._outbox.flush()
        if self._transport.can_write_eof():  # not over TLS
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)

    def keep(self, part: bytes) -> None:
        """Keep the next part of the body. `size` includes it."""
        if self.collected is not None:
            self.collected.write(part)
            return
        self.parts.append(part)
        if self.size > COLLECTED_BYTES:
            self.collected = io.BytesIO()
            self.collected.writelines(self.parts)
            self.parts = []

    def whole_body(self) -> bytes:
        """Return the body that has arrived, and keep nothing of it."""
        parts, collected = self.parts, self.collected
        self.parts, self.collected = [], None
        if collected is not None:
            return collected.getvalue()  # its own buffer, not a copy
        return parts[0] if len(parts) == 1 else b"".join(parts)


class FrontendConnection(HttpToolsProtocol):
    """One connection of a client. Pass `frontend_factory(services)` to uvicorn as its `http`."""

    def __init__(
        self,
        state: FrontendState,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.state = state
        self.url = b""
        self.answering: IncomingRequest | None = None
        """The request whose turn it is, or whose turn was last."""
        self.idle_since_s: float | None = None
        """When the last answer ended (loop time); None while a request is in progress."""
        self.known_head = b""
        """Framing of a request whose parser stopped at its head; its body is still to be read (upgrade.py)."""
        self.host = ""
        """The peer's address; "" if it has none."""
        self.address = ""
        """Whose connection it is, where connections are counted."""
        self.in_head = False
        self.trailers = 0
        """Headers after the body of the request."""
        self.head_bytes = 0
        """Bytes that were received of a head that is not complete."""
        self.chunk_bytes = 0
        """Bytes of the latest read."""
        self.body_bytes = 0
        """Bytes that were received of a body that did not come with its head, its framing included."""
        self.control_bytes = 0
        """Bytes of the body of a request of the control API."""
        self.between_requests = True
        """Whether the parser has read all bytes of the last request, and none of the next."""
        self.latest_head: KnownHead | None = None
        """The head of the last request, if it may come again."""
        self.unlike = 0
        """How many requests in a row had another head than the one before."""
        self.head_refusal: Refusal | None = None
        self.discarded_bytes: int | None = None
        """Bytes that came after a head was refused; None before."""
        self.stall_timer: asyncio.TimerHandle | None = None
        self.late_timer: asyncio.TimerHandle | None = None
        """Ends a request of the control API whose body does not come."""
        self.sending_ended = False
        """True if the client ended its sending while it waits for answers."""

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self.state.services.config().limits.connections_per_address
        self.host = self.client[0] if self.client else ""
        address = counted_address(self.client)
        if not self.state.connections.enter(address, most):
            self._refuse_head(TOO_MANY_CONNECTIONS)
            return
        self.address = address
        self._start_idle_timer(HEAD_S)

    def data_received(self, data: bytes) -> None:
        if self.discarded_bytes is not None:
            self._discard(data)
            return
        self.chunk_bytes = len(data)
        between = self.between_requests
        if between and self.latest_head is not None and self._read_again(self.latest_head, data):
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if self.known_head:
                self._read_on(data[stop.args[0] :])
        except httptools.HttpParserError:
            self._refuse_head(self.head_refusal or NOT_HTTP)
            return
        if self.in_head:
            self._wait_for_head()
        request: Any = self.cycle
        if isinstance(request, IncomingRequest):
            if request.body_complete:
                if between and self.between_requests and self.unlike < MOST_UNLIKE:
                    self._keep_head(request, data)
            else:
                self._wait_for_body(request)
                if request.size > UNCOUNTED_BYTES and not self.flow.read_paused:
                    self._give_way()
        elif request is not None and request.more_body:
            self._wait_for_control_body(request)

    def _read_again(self, head: KnownHead, data: bytes) -> bool:
        """Read a whole request whose head is that of the last one; return False, having done nothing, if it is not."""
        start = head.body_start(data)
        previous: Any = self.cycle
        if not start or not isinstance(previous, IncomingRequest) or not previous.response_complete:
            return False
        self.unlike = 0
        self._begin(head.endpoint, head.headers(data), None, chunked=True, keep_alive=True)
        if start < len(data):
            self.on_body(data[start:])
        self.on_message_complete()
        return True

    def _keep_head(self, request: IncomingRequest, data: bytes) -> None:
        """Keep the head of a request that came alone and whole, if it may come again."""
        self.unlike += 1
        if request.chunked and request.keep_alive and b"?" not in self.url:  # a query is judged, too
            self.latest_head = known_head(data, request.endpoint, dict(request.headers), len(self.headers))

    def _wait_for_head(self) -> None:
        """Bound a head that did not come at once, in bytes and in time."""
        if not self.head_bytes and self.idle_since_s is not None:
            self._unset_keepalive_if_required()
            self._start_idle_timer(HEAD_S)
        self.head_bytes += self.chunk_bytes
        if self.head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(HEAD_TOO_LARGE)

    def _give_way(self) -> None:
        """Read the next part of a body after a turn of the loop. libuv would read 32 parts at once, which are 8 MiB."""
        self.flow.pause_reading()
        self.loop.call_soon(self._read_next)

    def _read_next(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _wait_for_body(self, request: IncomingRequest) -> None:
        """Bound a body that did not come at once, in time, and in what frames it."""
        if request.body_timer is None:
            self._start_body_timer(request)
            self.body_bytes = 0
            return
        if self._is_mere_framing(request.size):
            request.keep_alive = False
            if request.response_complete:
                self.transport.abort()
            else:
                self._refuse(request, HEAD_TOO_LARGE)

    def _wait_for_control_body(self, cycle: Any) -> None:
        """Do the same for a request of the control API, which has a limit of its own where it reads the body."""
        if self.late_timer is None:
            limit_s = self.state.services.config().limits.body_s + LINGER_S
            self.late_timer = self.loop.call_later(limit_s, self._on_late_body, cycle)
            self.body_bytes = 0
        elif self._is_mere_framing(self.control_bytes):
            self.transport.abort()

    def _is_mere_framing(self, body_bytes: int) -> bool:
        """Return whether most of what has come since the head are trailers and extensions of chunks, not a body."""
        self.body_bytes += self.chunk_bytes
        if self.body_bytes <= MAX_HEAD_BYTES:
            return False
        return self.body_bytes > MAX_HEAD_BYTES + self.chunk_bytes + FRAMING_FACTOR * body_bytes

    def _on_late_body(self, cycle: Any) -> None:
        """Close the connection of a request of the control API whose body has not come."""
        self.late_timer = None
        if cycle.more_body and cycle is self.cycle:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.stall_timer is None:
            self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stall_timer is not None:
            self.stall_timer.cancel()
            self.stall_timer = None

    def _watch_reader(self) -> None:
        limit_s = self.state.services.config().limits.write_stall_s
        unsent = self.transport.get_write_buffer_size()
        self.stall_timer = self.loop.call_later(limit_s, self._check_reader, unsent)

    def _check_reader(self, unsent: int) -> None:
        """Cut off a client that has read next to nothing: nobody else would get its place."""
        self.stall_timer = None
        if unsent - self.transport.get_write_buffer_size() < LEAST_READ_BYTES:
            self.transport.abort()
        else:
            self._watch_reader()

    def _read_on(self, rest: bytes) -> None:
        """Read the body of a request whose parser took its end for the beginning of another protocol."""
        head, self.known_head = self.known_head, b""
        self.parser = httptools.HttpRequestParser(AfterKnownHead(self))
        self.data_received(head + rest)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open if the client waits for answers. It may have left, which looks the same."""
        request: Any = self.cycle
        if request is None or request.response_complete:
            return False
        if isinstance(request, IncomingRequest):
            if not request.body_complete or not request.chunked:
                return False
        elif request.more_body or request.scope["http_version"] == "1.0":
            return False
        self.sending_ended = True
        self._provoke_reset()
        self.loop.call_later(_RESET_CHECKS_S[0], self._close_if_reset, 1)
        return True

    def _provoke_reset(self) -> None:
        """Send what a waiting client ignores, and what the socket of a client that left answers with a reset."""
        current: Any = self.answering
        self.state.outbox.flush()
        if not isinstance(current, IncomingRequest) or current.response_complete:
            current = self.cycle
        if not isinstance(current, IncomingRequest):
            if not current.response_started:
                self.transport.write(_CONTINUE)
        elif not current.started and not current.waiting:
            self.transport.write(_CONTINUE)
        else:
            current.write(WAITING)

    def _close_if_reset(self, checks: int) -> None:
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        elif checks < len(_RESET_CHECKS_S):
            self.loop.call_later(_RESET_CHECKS_S[checks], self._close_if_reset, checks + 1)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self.stall_timer, self.late_timer):
            if timer is not None:
                timer.cancel()
        if self.address:
            self.state.connections.leave(self.address)
        # With pipelined requests, uvicorn's cycle is the newest request, not the one whose turn it is.
        for cycle in (self.answering, self.cycle, *(waiting for waiting, _ in self.pipeline)):
            if isinstance(cycle, IncomingRequest):
                self._on_client_gone(cycle)
        # The requests refer to the connection: without this, bodies would wait for the garbage collector.
        self.answering = None
        self.cycle = cast("Any", None)
        self.pipeline.clear()

    def _refuse_head(self, refusal: Refusal) -> None:
        """Answer a request whose head can't be read with a JSON error, and close the connection. The error has the
        shape of the endpoint if the target was read before the flaw."""
        if self.transport.is_closing():
            return
        target = self.url if len(self.url) <= MAX_TARGET_BYTES else b""
        endpoint = ROUTES.get(inference_path(target)) if target else None
        status, lines, body = refusal_reply(refusal, [b"connection: close\r\n"], endpoint)
        self.state.outbox.flush()
        head = b"".join((STATUS_LINES[status], *lines))
        self.transport.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.discarded_bytes = 0
        request: Any = self.cycle
        if request is not None and not request.response_complete:
            self.transport.close()  # its answer is given up
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _discard(self, data: bytes) -> None:
        """Read what follows a refused head for a while: a socket that is closed with unread bytes resets its
        connection, and the refusal is lost with it."""
        assert self.discarded_bytes is not None
        self.discarded_bytes += len(data)
        if self.discarded_bytes > MOST_DISCARDED_BYTES:
            self.transport.abort()

    def shutdown(self) -> None:
        """Prepare for the server's end: the connection closes after an answer that said so, or once it was idle for
        `LAST_IDLE_S`.

        A client whose last answer did not say that its connection closes may be sending the next request just now. It
        would be lost with a connection that is closed at once, and no client repeats it by itself.
        """
        self.state.outbox.flush()
        self.state.is_leaving = True
        self.timeout_keep_alive = LAST_IDLE_S
        request = cast("Any", self.cycle)
        if request is None or request.response_complete:
            if self.timeout_keep_alive_task is not None:
                self.timeout_keep_alive_task.cancel()
                self.timeout_keep_alive_task = None
            self._start_idle_timer(LAST_IDLE_S)
        elif not isinstance(request, IncomingRequest):
            super().shutdown()
        elif not request.started:
            request.keep_alive = False

    # head and body: callbacks of the parser

    def on_message_begin(self) -> None:
        self.url = b""
        self.between_requests = False
        self.latest_head = None
        self.expect_100_continue = False
        self.headers = []
        self.in_head = True
        self.trailers = 0
        self.head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self.url = self.url + url if self.url else url
        if len(self.url) > MAX_TARGET_BYTES:
            self.head_refusal = TARGET_TOO_LONG
            raise _MalformedError

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if not self.in_head:
            self._on_trailer(name)
            return
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers = self.headers
        headers.append((name, value))
        if len(headers) > MAX_HEADERS:
            self.head_refusal = HEAD_TOO_LARGE
            raise _MalformedError

    def _on_trailer(self, name: bytes) -> None:
        """Drop a header that follows the body, as its sender has been judged already; a hint is refused."""
        self.trailers += 1
        if self.trailers > MAX_HEADERS:
            self.head_refusal = HEAD_TOO_LARGE
            raise _MalformedError
        try:
            check_trailer(name.decode("latin-1"))
        except RefusedError as error:
            self.head_refusal = error.refusal
            raise _MalformedError from None

    def on_headers_complete(self) -> None:
        self.idle_since_s = None
        self.in_head = False
        if self.chunk_bytes + self.head_bytes > MAX_HEAD_BYTES and _size(self.headers) > MAX_HEAD_BYTES:
            self.head_refusal = HEAD_TOO_LARGE
            raise _MalformedError
        version = self.parser.get_http_version()
        if version != "1.1" and not _is_http_1_0(version, self.headers):
            raise _MalformedError  # httptools passes it on as a parser's error, which is answered with a 400
        path = self.url if b"?" not in self.url else self.url.partition(b"?")[0]
        endpoint = ROUTES.get(path)
        if endpoint is None:
            endpoint = ROUTES.get(inference_path(path))
        upgrading = self.parser.should_upgrade()
        if upgrading:
            self.known_head = framing_head(self.headers)
        if endpoint is None or self.parser.get_method() != b"POST":
            self._pass_to_asgi()
            return
        chunked = version != "1.0"
        keep_alive = chunked and self.parser.should_keep_alive() and (not upgrading or self.known_head != b"")
        flaw = query_flaw(self.url.partition(b"?")[2]) if path is not self.url else None
        headers = headers_by_name(self.headers)
        self._begin(endpoint, headers, flaw, chunked=chunked, keep_alive=keep_alive)

    def _begin(
        self, endpoint: Endpoint, headers: dict[str, str], flaw: Refusal | None, *, chunked: bool, keep_alive: bool
    ) -> None:
        """Begin a request whose head has come: admit or refuse it, and give it its turn. `flaw`: that of its query."""
        state = self.state
        self.idle_since_s = None
        request = IncomingRequest(
            endpoint=endpoint,
            headers=headers,
            transport=self.transport,
            flow=self.flow,
            outbox=state.outbox,
            on_end=self.on_response_complete,
        )
        request.start(state.services)
        request.chunked = chunked
        request.keep_alive = keep_alive and not state.is_leaving
        flaw = state.host_flaw(headers) or flaw
        request.admission = flaw or admit(state.services, headers, state.in_flight, self.host)
        if type(request.admission) is Admitted:
            admitted = request.admission
            key_id = admitted.caller.key_id
            if key_id and (refusal := state.over_share(key_id, admitted.config.limits.in_flight)) is not None:
                request.admission = refusal
        if type(request.admission) is Admitted:
            request.holds_slot = True
            request.key_id = request.admission.caller.key_id
            state.take_slot(request.key_id)
            length = request.headers.get("content-length")
            if length is not None and len(length) >= _LARGE_DIGITS:
                self._reserve(request, int(length))
        previous = cast("Any", self.cycle)  # uvicorn's annotation leaves out None
        self.cycle = cast("Any", request)
        if previous is None or previous.response_complete:
            self._start_turn(request)
        else:
            self.pipeline.appendleft((cast("Any", request), self.app))
            if len(self.pipeline) >= MAX_PIPELINED:
                self.flow.pause_reading()  # not earlier: a paused connection does not notice that its client left

    def _pass_to_asgi(self) -> None:
        """Let uvicorn handle the request. Only such a request needs the ASGI scope."""
        # CONNECT names an authority, which uvicorn cannot read; the control API refuses the method.
        url = b"/" if self.parser.get_method() == b"CONNECT" else origin_form(self.url)
        self.control_bytes = 0
        headers, expects = self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        if self.state.is_leaving:
            self.headers.append((b"connection", b"close"))  # which uvicorn says in its answer, too
        super().on_headers_complete()
        if self.state.is_leaving:  # or who asks often whether the router is ready would keep it from its end
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        request: Any = self.cycle  # `Any`: uvicorn's annotation would make compiled code look attributes up by name
        if not isinstance(request, IncomingRequest):
            self.control_bytes += len(body)
            super().on_body(body)
            return
        admission = request.admission
        request.size += len(body)
        if isinstance(admission, Refusal):
            return
        request.keep(body)
        if request.size > admission.config.limits.body_bytes:
            self._refuse(request, too_large(admission.config.limits.body_bytes))
        elif request.size > UNCOUNTED_BYTES and request.size > request.reserved:
            self._reserve(request, request.size)

    def _reserve(self, request: IncomingRequest, size: int) -> Refusal | None:
        """Count the body as `size` bytes in all; if there is no room for them, refuse the request and say why."""
        admission = request.admission
        if isinstance(admission, Refusal):
            return admission
        limits = admission.config.limits
        more = size - request.reserved
        refusal = self.state.bodies.take(admission.caller.key_id, more, limits.bodies_bytes, limits.body_bytes)
        if refusal is None:
            request.reserved = size
        else:
            self._refuse(request, refusal)
        return refusal

    def on_message_complete(self) -> None:
        if self.known_head:
            return
        self.between_requests = True
        request: Any = self.cycle
        if not isinstance(request, IncomingRequest):
            super().on_message_complete()
            request.more_body = False  # uvicorn leaves it if the answer was sent before
            if self.late_timer is not None:
                self.late_timer.cancel()
                self.late_timer = None
            return
        if request.body_timer is not None:
            request.body_timer.cancel()
        request.body = request.whole_body()
        if request.body.startswith(BYTE_ORDER_MARK):
            request.body = request.body.removeprefix(BYTE_ORDER_MARK)
        request.body_complete = True
        if request.response_complete and not request.keep_alive:
            self.transport.close()
        elif request.has_turn:
            self._start_task(request)

    def _start_body_timer(self, request: IncomingRequest) -> None:
        """Limit the time for a body that did not come with its head."""
        limit_s = self.state.services.config().limits.body_s
        request.body_timer = self.loop.call_later(limit_s, self._on_body_timeout, request, limit_s)

    def _on_body_timeout(self, request: IncomingRequest, limit_s: float) -> None:
        if request.response_complete:  # it was refused, and what comes of its body was discarded
            self.transport.close()
            return
        request.keep_alive = False
        message = f"The request body did not arrive within {limit_s:g} s."
        self._refuse(request, Refusal(408, "invalid_request", message))

    # the request's turn

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Start the next request of the pipeline; uvicorn calls this after an answer."""
        if isinstance(cycle, IncomingRequest):
            self._start_turn(cycle)
        else:
            super()._start_asgi_task(cycle, app)

    def _start_turn(self, request: IncomingRequest) -> None:
        request.has_turn = True
        self.answering = request
        if isinstance(request.admission, Refusal):
            request.refuse(request.admission)
        elif request.body_complete:
            self._start_task(request)
        elif self.expect_100_continue and request is cast("Any", self.cycle):
            self.state.outbox.flush()
            self.transport.write(_CONTINUE)

    def _start_task(self, request: IncomingRequest) -> None:
        admission = request.admission
        if isinstance(admission, Refusal):
            return
        if "content-encoding" in request.headers:
            work = self._decode_and_serve(admission, request)
        else:
            work = serve(self.state.services, admission, request)
        # With a name, and not by way of the loop: both would count the tasks, for a name that nobody reads.
        request.task = task = asyncio.Task(work, loop=self.loop, name=TASK_NAME)
        task.add_done_callback(partial(self._on_task_done, request))

    async def _decode_and_serve(self, admitted: Admitted, request: IncomingRequest) -> None:
        """Answer a request whose body is compressed."""
        try:
            if encoding_of(request.headers["content-encoding"]):
                grow = partial(self._reserve, request)
                request.body = await decoded(request.body, admitted.config.limits.body_bytes, grow)
        except RefusedError as error:
            if not request.response_complete:
                request.refuse(error.refusal)
            return
        request.body = request.body.removeprefix(BYTE_ORDER_MARK)
        await serve(self.state.services, admitted, request)

    def _refuse(self, request: IncomingRequest, refusal: Refusal) -> None:
        """Refuse a request whose body is still arriving."""
        self._release_slot(request)
        request.admission = refusal
        request.parts, request.collected = [], None
        if request.has_turn:
            request.refuse(refusal)

    def _on_task_done(self, request: IncomingRequest, task: asyncio.Task[None]) -> None:
        request.body = b""
        # A cancelled task keeps its frames, and with them this request and what was parsed of its body. Each would hold
        # the other until the garbage collector comes, which is seldom.
        request.task = None
        self._release_slot(request)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            UNEXPECTED.note("request", error, "unexpected error on %s", request.endpoint)
            request.fail(INTERNAL_ERROR)
        if not request.response_complete:
            request.break_off()

    def _on_client_gone(self, request: IncomingRequest) -> None:
        """Stop the work for a client that left."""
        request.disconnected = True
        if request.body_timer is not None:
            request.body_timer.cancel()
        if request.task is None:
            self._release_slot(request)
        elif not request.response_complete:
            request.task.cancel()

    def _release_slot(self, request: IncomingRequest) -> None:
        """Count the request out of those in progress, once."""
        if request.holds_slot:
            request.holds_slot = False
            self.state.give_slot_back(request.key_id)
            if request.reserved:
                self.state.bodies.give_back(request.key_id, request.reserved)
                request.reserved = 0

    # the end of an answer

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self.sending_ended:
            self.state.outbox.flush()
            self.transport.close()
        else:
            self._start_idle_timer(self.timeout_keep_alive)

    def _start_idle_timer(self, seconds: float) -> None:
        """Close the connection after so many seconds without a request."""
        self.idle_since_s = self.loop.time() + seconds - self.timeout_keep_alive
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle long enough; otherwise check again when it may have been."""
        self.timeout_keep_alive_task = None
        if self.idle_since_s is None or self.transport.is_closing():
            return
        remaining_s = self.idle_since_s + self.timeout_keep_alive - self.loop.time()
        if remaining_s <= 0.01:
            self.transport.close()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(remaining_s, self.timeout_keep_alive_handler)


class _MalformedError(Exception):
    """The head is none of HTTP/1.0 or HTTP/1.1, or more than may come of one. httptools passes it on as a parser's
    error."""


NOT_HTTP = Refusal(400, "invalid_request", "This is not a valid HTTP request. Send HTTP/1.1.")
HEAD_TOO_LARGE = Refusal(
    431,
    "request_too_large",
    f"The head of the request is too large: send at most {MAX_HEADERS} headers in {MAX_HEAD_BYTES // 1024} KiB.",
)
TARGET_TOO_LONG = Refusal(
    414, "request_too_large", f"The path and query are too long: send at most {MAX_TARGET_BYTES // 1024} KiB."
)
TOO_MANY_CONNECTIONS = Refusal(
    503,
    "overloaded",
    "Too many connections from this address (limits.connections_per_address). Reuse connections.",
    retry_after_s=5.0,
)


def _size(headers: _Headers) -> int:
    """Return the bytes of header lines, with the colon, the space and the line's end of each."""
    return sum([len(name) + len(value) + 4 for name, value in headers])


def _is_http_1_0(version: str, headers: _Headers) -> bool:
    """Return whether a head with another version than 1.1 is valid HTTP/1.0.

    llhttp also accepts a request line without a version, `HTTP/2.0`, and chunks in HTTP/1.0, whose framing is faulty
    (RFC 9112, 6.1).
    """
    return version == "1.0" and not any(name.lower() == b"transfer-encoding" for name, _ in headers)


def frontend_factory(state: FrontendState) -> Callable[..., FrontendConnection]:
    """Return the function with which uvicorn makes a FrontendConnection for each connection of one server."""
    return partial(FrontendConnection, state)


def headers_by_name(pairs: _Headers) -> dict[str, str]:
    """Map lowercase header names to values. The values of a repeated header are joined, so that none is lost."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
    if len(headers) != len(pairs):
        for name in headers:
            values = [value for sent_name, value in pairs if sent_name.decode("latin-1") == name]
            headers[name] = b", ".join(values).decode("latin-1")
    return headers


def host_flaw(headers: Mapping[str, str]) -> Refusal | None:
    """Return a 400 unless exactly one valid Host was sent.

    llhttp accepts anything as a Host, which no honest client sends. Two Host headers arrive here joined by a comma, and
    are therefore invalid too.
    """
    if _HOST.match(headers.get("host", "")):
        return None
    return Refusal(400, "invalid_request", "Send exactly one valid Host header.", "host")
