"""What the HTTP client is told, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping

from spillway_router.core.frozen import fast_frozen


@fast_frozen(frozen=True, slots=True)
class Target:
    """Where a backend's calls go: parsed once at start. `headers` hold the credentials: never log them."""

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


@fast_frozen(frozen=True, slots=True)
class Reply:
    """A whole non-stream answer of a provider."""

    status: int
    headers: Mapping[str, str]
    body: bytes
