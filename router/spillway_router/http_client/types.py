"""The values at the HTTP client's edge: where a call goes, and a whole answer."""

from __future__ import annotations

from collections.abc import Mapping

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


@fast_frozen(frozen=True, slots=True)
class Reply:
    """A whole answer of a provider. Header names are lowercase."""

    status: int
    headers: Mapping[str, str]
    body: bytes
