"""A request whose head offers another protocol (`Upgrade: h2c`) and that has a body.

A server may ignore the offer and answer as HTTP/1.1 (RFC 9110, 7.8); Java's HTTP client and `curl --http2` rely on it.
httptools, however, ends the message at such a head, and takes what follows for the other protocol. The connection
therefore gets a second parser, which reads the framing headers of the same request again and then its body.
"""

from __future__ import annotations

from typing import Protocol

_FRAMING = (b"content-length", b"transfer-encoding")


class ParserCallbacks(Protocol):
    """What httptools calls."""

    def on_message_begin(self) -> None:
        """A message begins."""

    def on_url(self, url: bytes) -> None:
        """Take part of the target."""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""

    def on_headers_complete(self) -> None:
        """The head is complete."""

    def on_body(self, body: bytes) -> None:
        """Take part of the body."""

    def on_message_complete(self) -> None:
        """The message is complete."""


def framing_head(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a request head with only the framing headers among `headers`; b"" if the request has no body."""
    framing = [b"%b: %b\r\n" % (name, value) for name, value in headers if name in _FRAMING]
    return b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing) if framing else b""


class AfterKnownHead:
    """Parser callbacks that keep the first head, which is already known, from `connection` and pass on all the rest."""

    def __init__(self, connection: ParserCallbacks) -> None:
        self._connection = connection
        self._head_over = False

    def on_message_begin(self) -> None:
        """Pass on the beginning of a later message."""
        if self._head_over:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Pass on the target of a later message."""
        if self._head_over:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass on a header of a later message."""
        if self._head_over:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass on the end of a later head."""
        if self._head_over:
            self._connection.on_headers_complete()
        self._head_over = True

    def on_body(self, body: bytes) -> None:
        """Pass on part of a body."""
        self._connection.on_body(body)

    def on_message_complete(self) -> None:
        """Pass on the end of a message."""
        self._connection.on_message_complete()
