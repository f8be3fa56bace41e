"""The supervisor's own questions to the engine over HTTP: one token, and how much is in flight."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import httpx

from spillway_server.engine.liveness import EngineLoad, read_load

# The first token after a start can wait for kernels to be compiled.
_FIRST_TOKEN_S = 120.0
_METRICS_S = 5.0
_ANY_JSON = {"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine listens: its root URL, or a Unix socket's path; the name it serves; the key it asks for; whether
    it embeds instead of generating."""

    root_url: str
    served_model: str
    uds: str | None = None
    api_key: str | None = None
    embedding: bool = False

    @property
    def base_url(self) -> str:
        """The URL that OpenAI clients take."""
        return f"{self.root_url}/v1"


class EngineClient:
    """Asks one engine. Use as an async context manager. Answers None or False for every kind of failure."""

    def __init__(self, address: Address) -> None:
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
        """Whether the engine generates one token (or embeds one) now. Waits up to two minutes for it once connected."""
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
            # The first answer bound to a schema loads the grammar compiler, the first with log-probabilities compiles
            # what ranks them. On a slow machine that takes seconds, in which the engine makes no step, as if it hung.
            # An engine that can't do it is ready all the same.
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

    async def load(self) -> EngineLoad | None:
        """What the engine holds now, or None when it doesn't tell."""
        try:
            answer = await self._http.get("/metrics", timeout=_METRICS_S)
            answer.raise_for_status()
            return read_load(answer.text)
        except (httpx.HTTPError, ValueError):
            return None
