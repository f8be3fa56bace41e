"""Compressed request bodies: gzip and deflate are decoded within the size limit, all else is a 415."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import Callable

from spillway_router.core.routing.model import Refusal
from spillway_router.http_client.encoded import CODINGS, EITHER_WBITS
from spillway_router.proxy.request.body import too_large
from spillway_router.proxy.request.errors import RefusedError, bad_request

_SLICE_BYTES = 512 * 1024
"""Bytes that are decoded before the event loop gets its turn: about 2 ms."""
_MOST_MEMBERS = 1000
"""gzip allows a body to be a sequence of members; that many of them are no honest client's."""


def encoding_of(header: str) -> str:
    """Return the coding that a Content-Encoding header names; "" for none. Raise RefusedError for one not supported."""
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return ""
    if coding in CODINGS:
        return coding
    message = (
        f"The content-encoding {header[:80]!r} is not supported. Send the body as plain JSON, or with the "
        "content-encoding gzip or deflate."
    )
    raise RefusedError(Refusal(415, "invalid_request", message, "content-encoding"))


async def decoded(body: bytes, limit: int, grow: Callable[[int], Refusal | None] = lambda _: None) -> bytes:
    """Return the decoded form of a gzip or deflate body, of at most `limit` bytes.

    Other work goes on in between. `grow` is called with the bytes in memory as they become more, and may refuse them.
    Raise RefusedError: that refusal, 413 if the decoded body is larger, 400 if it is malformed or ends early.
    """
    collected = io.BytesIO()  # joining parts at the end would stop the loop
    size = members = 0
    at = 0
    while at < len(body):
        members += 1
        if members > _MOST_MEMBERS:
            raise bad_request(f"The compressed body has more than {_MOST_MEMBERS} members.", "content-encoding")
        member = zlib.decompressobj(EITHER_WBITS)
        while not member.eof:
            piece = member.unconsumed_tail
            if not piece:  # the input goes in by slices, as the rest that is not consumed is copied each time
                piece = body[at : at + _SLICE_BYTES]
                at += len(piece)
            try:
                part = member.decompress(piece, _SLICE_BYTES)
            except zlib.error as error:
                raise bad_request(f"The body is not valid gzip or deflate: {error}.", "content-encoding") from None
            if not part and not piece and not member.eof:
                raise bad_request("The compressed body ends early.", "content-encoding")
            size += len(part)
            if size > limit:
                raise RefusedError(too_large(limit))
            refusal = grow(len(body) + size) if size > _SLICE_BYTES else None
            if refusal is not None:
                raise RefusedError(refusal)
            collected.write(part)
            if size > _SLICE_BYTES:
                await asyncio.sleep(0)
        at -= len(member.unused_data)
    return collected.getvalue()
