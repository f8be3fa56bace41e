"""The digest by which a body is recognised when it comes again."""

from __future__ import annotations

import asyncio
from hashlib import sha256

AT_ONCE_BYTES = 256 << 10
"""Bytes up to which a body is hashed in one go; a megabyte takes a millisecond or two."""


async def body_digest(body: bytes) -> bytes:
    """Return the SHA-256 of a body, 32 bytes; a large body is hashed in a thread, while the event loop goes on."""
    if len(body) <= AT_ONCE_BYTES:
        return sha256(body).digest()
    return await asyncio.to_thread(_digest, body)


def _digest(body: bytes) -> bytes:
    return sha256(body).digest()
