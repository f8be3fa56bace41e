"""Calls to the API of a cluster that knows engines: Kubernetes, SkyPilot's API server, Ray's dashboard.

The token is read from its file at every call, because Kubernetes renews it there. An answer that is no success, too
large or no JSON raises DiscoveryError, which says what to change.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from spillway_router.config.discovery import DiscoveryError

MOST_BYTES = 32 << 20
"""The largest answer that is read: the slices of a thousand engines take about 1 MB."""
MOST_LINE_BYTES = 4 << 20
CONNECT_S = 5.0
ADVICE: Mapping[int, str] = {
    401: "it does not take the token: check discover_token_file",
    403: "it forbids this: Kubernetes wants a role with get, list and watch on endpointslices (discovery.k8s.io)",
    404: "it does not know this path: check discover_api and the versions",
}


@dataclass(frozen=True, slots=True)
class ApiPlace:
    """Where an API is, the file with the bearer token for it (None: it wants none), and the file with the authority of
    its certificate (None: the system's)."""

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None


class StatusError(DiscoveryError):
    """An API answered with a status that is no success."""


class ClusterApi:
    """Calls one API. Call `close` when done. Raises OSError or DiscoveryError, never httpx's errors."""

    def __init__(self, place: ApiPlace) -> None:
        self._place = place
        self._client: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close the connections; harmless when repeated."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def json(self, method: str, path: str, limit_s: float, body: object = None) -> Any:
        """Return the JSON of an answer."""
        return (await self.answer(method, path, limit_s, body))[0]

    async def answer(self, method: str, path: str, limit_s: float, body: object = None) -> tuple[Any, httpx.Headers]:
        """Return the JSON of an answer, null where it has no body, and its headers."""
        async with self._opened(method, path, limit_s, body) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise DiscoveryError(f"{self._place.url}{path} answers with more than {MOST_BYTES >> 20} MiB")
        return self._parsed(bytes(content), path), response.headers

    async def lines(self, path: str, limit_s: float) -> AsyncIterator[Any]:
        """Yield the JSON of each line of an answer that goes on; `limit_s` is the longest silence."""
        async with self._opened("GET", path, limit_s, None) as response:
            rest = b""
            async for piece in response.aiter_bytes():
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    if line.strip():
                        yield self._parsed(line, path)
                if len(rest) > MOST_LINE_BYTES:
                    raise DiscoveryError(
                        f"{self._place.url}{path} sends a line of more than {MOST_LINE_BYTES >> 20} MiB"
                    )

    @asynccontextmanager
    async def _opened(self, method: str, path: str, limit_s: float, body: object) -> AsyncIterator[httpx.Response]:
        headers = {"accept": "application/json"}
        if self._place.token_file is not None:
            headers["authorization"] = f"Bearer {self._place.token_file.read_text(encoding='utf-8').strip()}"
        timeout = httpx.Timeout(limit_s, connect=min(limit_s, CONNECT_S))
        url = self._place.url.rstrip("/") + path
        try:
            async with self._connected().stream(
                method, url, json=body, headers=headers, timeout=timeout, follow_redirects=False
            ) as response:
                if response.status_code // 100 != 2:
                    await response.aread()
                    advice = ADVICE.get(response.status_code, response.text[:200].strip() or "no reason is given")
                    raise StatusError(f"{url} answers with {response.status_code}: {advice}")
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DiscoveryError(f"{url} can't be read: {type(error).__name__} {error}".rstrip()) from error

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            ca = self._place.ca_file
            verify: ssl.SSLContext | bool = True
            if self._place.url.startswith("https:"):
                verify = ssl.create_default_context(cafile=None if ca is None else str(ca))
            self._client = httpx.AsyncClient(verify=verify, trust_env=False)
        return self._client

    def _parsed(self, content: bytes, path: str) -> Any:
        if not content.strip():
            return None
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DiscoveryError(f"{self._place.url}{path} does not answer with JSON: {error}") from error
