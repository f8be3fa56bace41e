"""What the cache needs of a place for stored answers."""

from __future__ import annotations

from typing import Protocol


class StoreUnavailableError(Exception):
    """The store can't be used now. The message says why and names no secret."""


class AnswerStore(Protocol):
    """Bytes under keys of 32 bytes, for a time. A store forgets when it is full, and says nothing of it."""

    leaves_process: bool
    """Whether what is stored is outside of this process, so that private content may not be stored there."""

    async def get(self, key: bytes) -> bytes | None:
        """Return what is stored and not over, or None. Raises StoreUnavailableError."""

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Store a value for `ttl_s` seconds, in place of what is there. Raises StoreUnavailableError."""

    async def close(self) -> None:
        """Let go of files and connections."""
