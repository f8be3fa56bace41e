"""How many bytes of request bodies are in memory, in all and for each key."""

from __future__ import annotations

from spillway_router.core.routing.model import Refusal

UNCOUNTED_BYTES = 16 * 1024
"""Bodies up to this size are not counted: `limits.in_flight` bounds them well enough."""

HELD_BODY = "spillway.held_body"
"""Key of the ASGI scope under which the guard (entry/app.py) keeps the count of the body of a control request."""


class HeldBody:
    """The bytes that are counted for the body of one request."""

    __slots__ = ("_bytes", "_key_id", "_memory")

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._key_id = ""
        self._bytes = 0

    def grow(self, key_id: str, size: int, limit: int, largest: int) -> Refusal | None:
        """Count `size` bytes in all, or return a 503 if there is no room for them (`BodyMemory.take`)."""
        if size <= max(UNCOUNTED_BYTES, self._bytes):
            return None
        refusal = self._memory.take(key_id, size - self._bytes, limit, largest)
        if refusal is None:
            self._key_id, self._bytes = key_id, size
        return refusal

    def give_back(self) -> None:
        """Count all of it out."""
        if self._bytes:
            self._memory.give_back(self._key_id, self._bytes)
            self._bytes = 0


class BodyMemory:
    """The counts. A key may hold half of the limit, so that one key cannot keep all others out."""

    def __init__(self) -> None:
        self.held = 0
        self.returned_bytes = 0
        """Bytes that were counted out since the start."""
        self._held_by_key: dict[str, int] = {}

    def take(self, key_id: str, size: int, limit: int, largest: int) -> Refusal | None:
        """Count `size` more bytes of a key ("": no key), or return a 503 if there is no room for them.

        `limit` bounds the sum of all bodies, and `largest` a single one, for which an idle router always has room.
        """
        held = self._held_by_key.get(key_id, 0)
        share = max(limit // 2, largest) if key_id else limit
        if self.held + size > max(limit, largest) or held + size > share:
            message = "The bodies of the requests in progress take all the memory that is reserved for them."
            return Refusal(503, "overloaded", f"{message} Send the request again later.", retry_after_s=1.0)
        self.held += size
        self._held_by_key[key_id] = held + size
        return None

    def give_back(self, key_id: str, size: int) -> None:
        """Count bytes out that were taken before."""
        self.held -= size
        self.returned_bytes += size
        held = self._held_by_key.get(key_id, 0) - size
        if held > 0:
            self._held_by_key[key_id] = held
        else:
            self._held_by_key.pop(key_id, None)
