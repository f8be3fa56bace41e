"""The supervisor's own requests to the engine over HTTP: one token, and how much is in flight."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import httpx

from spillway_server.engine.liveness import EngineActivity, read_activity

# The first token after a start can wait for kernels to be compiled.
_FIRST_TOKEN_S = 120.0
_METRICS_S = 5.0
_MOST_BYTES = 4 * 1024 * 1024
"""No engine's metrics page is larger."""
_ANY_JSON = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where an engine listens: its root URL or Unix socket, the model name that it serves, the key that it requires,
    and whether it embeds instead of generating."""

    root_url: str
    served_model: str
    uds: str | None = None
    api_key: str | None = None
    embedding: bool = False

    @property
    def base_url(self) -> str:
        """The base URL for OpenAI clients."""
        return f"{self.root_url}/v1"


class EngineClient:
    """A client of one engine, used as an async context manager. Every kind of failure is None or False, not an
    exception."""

    def __init__(self, address: EngineAddress) -> None:
        headers = {"authorization": f"Bearer {address.api_key}"} if address.api_key else {}
        self._model = address.served_model
        self._embedding = address.embedding
        self._warm = False
        self._http = httpx.AsyncClient(
            base_url=address.root_url,
            headers=headers,
            transport=httpx.AsyncHTTPTransport(uds=address.uds),
            trust_env=False,
        )

    async def __aenter__(self) -> EngineClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def generates(self) -> bool:
        """Return whether the engine generates (or embeds) one token now. Waits up to two minutes for it once
        connected."""
        if self._embedding:
            return await self._embeds()
        body = {"model": self._model, "prompt": "1", "max_tokens": 1, "temperature": 0}
        timeout = httpx.Timeout(_FIRST_TOKEN_S, connect=2.0)
        try:
            answer = await self._http.post("/v1/completions", json=body, timeout=timeout)
            if answer.status_code != 200 or answer.json()["choices"][0]["finish_reason"] != "length":
                return False
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError):
            return False
        if not self._warm:
            # The first answer with a schema loads the grammar compiler, and the first with log-probabilities compiles
            # the kernel that ranks them. On a slow machine that takes seconds without an engine step, which looks like
            # a hang. An engine that can do neither is ready all the same.
            self._warm = True
            with contextlib.suppress(httpx.HTTPError):
                body |= {"response_format": _ANY_JSON, "logprobs": 1}
                await self._http.post("/v1/completions", json=body, timeout=timeout)
        return True

    async def _embeds(self) -> bool:
        timeout = httpx.Timeout(_FIRST_TOKEN_S, connect=2.0)
        try:
            answer = await self._http.post("/v1/embeddings", json={"model": self._model, "input": "1"}, timeout=timeout)
            return answer.status_code == 200 and len(answer.json()["data"][0]["embedding"]) > 0
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError):
            return False

    async def activity(self) -> EngineActivity | None:
        """Return the engine's current activity, or None where its metrics are unavailable or make no sense."""
        try:
            async with asyncio.timeout(_METRICS_S), self._http.stream("GET", "/metrics", timeout=None) as answer:
                answer.raise_for_status()
                page = bytearray()
                async for chunk in answer.aiter_bytes():
                    page += chunk
                    if len(page) > _MOST_BYTES:
                        return None
            return read_activity(page.decode("utf-8", "replace"))
        except (httpx.HTTPError, TimeoutError, ValueError, ArithmeticError, LookupError):
            return None
