"""A client inside the router: it captures a whole answer instead of sending it."""

from __future__ import annotations

from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.proxy.client.client import Client, SentReply, StreamCopy
from spillway_router.proxy.client.replies import Lines, refusal_reply


class CapturingClient(Client):
    """Captures `status` and `content` of the reply. Its requests are never streams.

    Nobody waits at a socket, so it never disconnects by itself: the task that answers it is cancelled instead.
    """

    __slots__ = (
        "base_headers", "body", "content", "copy_reply", "disconnected", "endpoint", "headers", "request_id",
        "sent_reply", "started", "status", "stream_copy", "waiting",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, headers: dict[str, str], body: bytes, request_id: str) -> None:
        self.endpoint = endpoint
        self.headers = headers
        self.body = body
        self.request_id = request_id
        self.base_headers: tuple[bytes, ...] = ()
        self.copy_reply = False
        self.sent_reply: SentReply | None = None
        self.stream_copy: StreamCopy | None = None
        self.started = self.waiting = self.disconnected = False
        self.status, self.content = 500, b""

    def reply(self, status: int, headers: Lines, body: bytes) -> None:
        """Capture a whole answer."""
        self.started = True
        self.status, self.content = status, body
        if self.copy_reply:
            self.sent_reply = (status, tuple(headers), body)

    def refuse(self, refusal: Refusal, headers: Lines | None = None) -> None:
        """Capture an error in the endpoint's shape."""
        self.reply(*refusal_reply(refusal, [*(headers or ())], self.endpoint))

    def begin_stream(self, _headers: Lines, _first: bytes) -> None:
        """Fail: a captured request is never a stream."""
        raise AssertionError("a request of the router itself must not be a stream")

    def send_waiting(self, _headers: Lines) -> bool:
        """Return False: no connection has to be kept open."""
        return False

    def send_comment(self) -> bool:
        """Return False: no connection has to be kept open."""
        return False

    def write(self, _data: bytes) -> None:
        """Fail: a captured request is never a stream."""
        raise AssertionError("a request of the router itself must not be a stream")

    @property
    def paused(self) -> bool:
        """False: whoever reads the reply reads it whole."""
        return False

    async def drain(self) -> None:
        """Return at once: nothing is buffered."""

    def fail(self, refusal: Refusal) -> bool:
        """Capture the error unless an answer was captured."""
        if self.started:
            return False
        self.refuse(refusal)
        return True

    def end_stream(self, _data: bytes = b"") -> None:
        """Fail: a captured request is never a stream."""
        raise AssertionError("a request of the router itself must not be a stream")
