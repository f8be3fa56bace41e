"""Asks one engine for its pages, over kept connections of the router's own HTTP client.

Every engine is asked 2.25 times a second, whether there are requests or not. With dozens of engines that is what their
number costs, so the client of the hot path asks: a request takes a seventh of the CPU time that it takes with httpx.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

from spillway_router.http_client.connection import PendingCall
from spillway_router.http_client.dial import MayDial
from spillway_router.http_client.pool import Pool, PoolLimits
from spillway_router.http_client.types import Reply, Target

PROBE_HEADER: Final = "x-spillway-probe"
"""Marks a request of the router's own, for whoever reads the engine's log. Its value says what the request is for."""
_UNBOUNDED_S = 3600.0
"""For the limits of the pool: whoever asks bounds the time."""
_SMALL_BYTES = 65_536


class EngineClient:
    """Asks the server of one target, with its credentials. `tls` is for targets with https, `may_dial` judges each
    address of the server. Call `close` when done.

    Paths count from the server's root: metrics and health are next to the API, not under its `/v1`. Whoever asks bounds
    the time; a request that is cancelled closes its connection.
    """

    __slots__ = ("_heads", "_pool", "place")

    def __init__(self, target: Target, tls: ssl.SSLContext | None = None, may_dial: MayDial | None = None) -> None:
        self.place = target.authority.decode()
        root = replace(target, prefix=target.prefix.removesuffix("/v1"))
        self._pool = Pool(root, PoolLimits(idle=4, connect_s=_UNBOUNDED_S), tls, local=True, may_dial=may_dial)
        self._heads: dict[tuple[str, str], bytes] = {}
        """The heads of the pages, which are asked for again and again."""

    async def status(self, path: str) -> int:
        """Return the status of a page. Raises TransportError.

        What its body says does not matter. A short one is read, so that the connection can be kept.
        """
        response = await self._pool.send(self._head(path), b"", _UNBOUNDED_S, PendingCall())
        try:
            if _is_small(response.headers.get("content-length", "")):
                await response.read_all(_SMALL_BYTES)
            return response.status
        finally:
            response.close()

    async def get(self, path: str, most_bytes: int, accept: str = "*/*") -> Reply:
        """Return a page, of the media type `accept`.

        Raises TransportError, in particular TooLargeError for a body of more than `most_bytes`.
        """
        return await self._pool.call(self._head(path, accept), b"", _UNBOUNDED_S, most_bytes, PendingCall())

    async def post(self, path: str, body: Mapping[str, Any], purpose: str, most_bytes: int) -> Reply:
        """Return the answer to a JSON body. Raises TransportError, as `get` does."""
        content = json.dumps(body).encode()
        marked = f"{PROBE_HEADER}: {purpose}\r\n".encode()
        head = self._pool.head(path, len(content), marked, private=False)
        return await self._pool.call(head, content, _UNBOUNDED_S, most_bytes, PendingCall())

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()

    def _head(self, path: str, accept: str = "*/*") -> bytes:
        head = self._heads.get((path, accept))
        if head is None:
            extra = f"accept: {accept}\r\n".encode()
            head = self._heads[path, accept] = self._pool.uncached_head("GET", path, 0, private=False, extra=extra)
        return head


def is_error_of_server(status: int) -> bool:
    """Return whether a status says that the server failed."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _is_small(content_length: str) -> bool:
    return content_length.isdecimal() and len(content_length) < 12 and int(content_length) < _SMALL_BYTES
