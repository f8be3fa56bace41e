"""What an exchange needs of the client whose request it answers.

`HttpClientConnection` is a client at a socket; `CapturingClient` keeps the reply for a caller inside the router.
"""

from __future__ import annotations

from typing import Protocol

from spillway_router.core.routing.model import Endpoint, Refusal
from spillway_router.proxy.client.replies import Lines


class StreamCopy:
    """The bytes of a stream as they go out, up to `most_bytes`. A longer one leaves nothing behind."""

    __slots__ = ("_parts", "left_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.left_bytes = most_bytes
        """How much more it takes; below 0 the stream was too long."""
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Add what was sent."""
        self.left_bytes -= len(data)
        if self.left_bytes >= 0:
            self._parts.append(data)
        else:
            self._parts.clear()

    def taken(self) -> bytes | None:
        """Return the bytes of the whole stream; None if there were too many."""
        return b"".join(self._parts) if self.left_bytes >= 0 else None


SentReply = tuple[int, tuple[bytes, ...], bytes]
"""Status, header lines and body of a whole reply."""


class Client(Protocol):
    """One request, and the way back to its sender. Answer it with one of `reply`, `refuse` or `begin_stream`."""

    request_id: str
    endpoint: Endpoint
    headers: dict[str, str]
    """The request's; names in lowercase."""
    body: bytes
    base_headers: tuple[bytes, ...]
    """Header lines of every answer to this request."""
    started: bool
    """Bytes of an answer were sent: no other backend can be asked."""
    waiting: bool
    """The 200 of a stream and comments were sent, but nothing of any answer."""
    disconnected: bool
    copy_reply: bool
    """Set it to have a whole reply copied to `sent_reply`."""
    sent_reply: SentReply | None
    stream_copy: StreamCopy | None
    """Set it to have a stream copied, without comments and without its last bytes (those of `end_stream`)."""

    def reply(self, status: int, headers: Lines, body: bytes) -> None:
        """Send a whole answer. Takes `headers` over."""

    def refuse(self, refusal: Refusal, headers: Lines | None = None) -> None:
        """Send an error in the endpoint's shape, with further header lines."""

    def begin_stream(self, headers: Lines, first: bytes) -> None:
        """Send the 200 of a stream and its first bytes."""

    def send_waiting(self, headers: Lines) -> bool:
        """Send the 200 of a stream, or a comment, so that intermediaries keep the connection open.

        Returns False once the answer has started or the client left.
        """

    def send_comment(self) -> bool:
        """Send a comment in a stream that has started. Returns False once the answer has ended or the client left."""

    def write(self, data: bytes) -> None:
        """Send part of a stream. Check `paused` before the next."""

    @property
    def paused(self) -> bool:
        """True while the client reads more slowly than the router writes: `drain` before writing more."""

    async def drain(self) -> None:
        """Wait until the client has read enough."""

    def fail(self, refusal: Refusal) -> bool:
        """End the answer with an error, however far it is: a refusal, or one error event in a stream that has begun.

        Returns False, and does nothing, if the whole answer was sent already.
        """

    def end_stream(self, data: bytes = b"") -> None:
        """Send the last bytes of a stream and its clean end."""
