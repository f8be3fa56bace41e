"""Bodies that come compressed. No request allows it (`accept-encoding: identity`), and some gateways do it all the
same; their customers' own clients decode it without a word."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping

from spillway_router.http_client.connection import ConnectionBrokenError, TooLargeError

CODINGS = frozenset({"gzip", "x-gzip", "deflate"})
EITHER_WBITS = 32 + zlib.MAX_WBITS
"""zlib recognises gzip and zlib by their headers."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Some clients and servers on Windows put it before their JSON; parsers reject it."""
_LARGE = 256 * 1024
"""Bytes that are decoded in a thread: they would stop the loop for a millisecond or more."""
_MOST_AT_ONCE = 16 * 1024 * 1024
"""Most bytes that one read of a socket may become."""


def is_encoded(headers: Mapping[str, str]) -> bool:
    """Return whether a body with these headers must be decoded. Other codings are often the wrong label of plain
    text."""
    coding = headers.get("content-encoding")
    return coding is not None and coding.strip().lower() in CODINGS


class Inflater:
    """Decodes one body as it comes."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(EITHER_WBITS)

    def feed(self, data: bytes) -> bytes:
        """Return what these bytes add. Raises ConnectionBrokenError."""
        decoded = _decompressed(self._stream, data, _MOST_AT_ONCE)
        if self._stream.unconsumed_tail:
            raise ConnectionBrokenError("the upstream's compressed answer grows too much as it is decoded")
        return decoded

    def end(self) -> None:
        """Take note that no more comes. Raises ConnectionBrokenError if more should."""
        if not self._stream.eof:
            raise ConnectionBrokenError("the upstream's compressed answer ends early")


async def decoded(body: bytes, limit: int) -> bytes:
    """Return a whole body decoded. Raises ConnectionBrokenError, or TooLargeError over `limit` bytes."""
    if len(body) <= _LARGE:
        return _whole(body, limit)
    return await asyncio.to_thread(_whole, body, limit)


def _whole(body: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(EITHER_WBITS)
    text = _decompressed(stream, body, limit + 1)
    if len(text) > limit:
        raise TooLargeError(f"the upstream's answer is larger than {limit} bytes")
    if not stream.eof:
        raise ConnectionBrokenError("the upstream's compressed answer ends early")
    return text


def _decompressed(stream: zlib._Decompress, data: bytes, most: int) -> bytes:
    try:
        return stream.decompress(data, most)
    except zlib.error as error:
        raise ConnectionBrokenError(f"the upstream's compressed answer is malformed: {error}") from None
