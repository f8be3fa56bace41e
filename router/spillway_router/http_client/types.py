"""The values at the HTTP client's edge: where a call goes, and a whole answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from spillway_router.core.frozen import fast_frozen


@fast_frozen(frozen=True, slots=True)
class Target:
    """Where a backend's calls go, parsed once at start. `headers` contain the credentials: never log them."""

    scheme: str
    host: str
    port: int
    prefix: str
    """Path of the base URL without a trailing slash, e.g. `/v1`."""
    headers: tuple[tuple[bytes, bytes], ...]
    authority: bytes
    uds: str = ""

    def __repr__(self) -> str:
        return f"Target({self.scheme}://{self.host}:{self.port}{self.prefix})"


@final
class Pieces:
    """The body of a call in pieces, so that a large one need not be copied to be changed. `bytes()` joins them."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: tuple[bytes | memoryview, ...]) -> None:
        self.parts = parts
        self._size = sum([len(part) for part in parts])

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


@fast_frozen(frozen=True, slots=True)
class Reply:
    """A whole answer of a provider. Header names are lowercase."""

    status: int
    headers: Mapping[str, str]
    body: bytes
