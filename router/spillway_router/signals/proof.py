"""The proof that an engine works: one token that it generates.

Engines differ in what they serve. The token is requested as a completion, then as a chat, and of an embedding model a
vector: the first route that the engine has decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx

from spillway_router.signals.abilities import PROBE_HEADER
from spillway_router.signals.answers import freed

_MOST_BYTES: Final = 1 << 20
_BUSY = frozenset({httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS})


def _requests(model: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the requests for one token, by path, in the order in which they are tried."""
    limits = {"model": model, "max_tokens": 1, "temperature": 0}
    return (
        ("/v1/completions", {**limits, "prompt": "a"}),
        ("/v1/chat/completions", {**limits, "messages": [{"role": "user", "content": "a"}]}),
        ("/v1/embeddings", {"model": model, "input": "a"}),
    )


async def generates(client: httpx.AsyncClient, root_url: str, model: str) -> bool:
    """Return whether the engine generates a token now. The caller bounds the time.

    An engine that refuses all three requests as wrong can't be asked. It answers, and that has to do.

    Raises httpx.HTTPError.
    """
    for path, body in _requests(model):
        status, answer = await _post(client, root_url + path, body)
        if status == httpx.codes.OK:
            return _has_token(answer)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in _BUSY or status < httpx.codes.BAD_REQUEST:
            return False
    return True


async def _post(client: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> tuple[int, Any]:
    """Return the status of the answer and its JSON, None if it is none or larger than any answer of one token."""
    headers = {PROBE_HEADER: "token"}
    async with freed(client.stream("POST", url, json=body, headers=headers, timeout=None)) as response:
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                return response.status_code, None
    try:
        return response.status_code, httpx.Response(response.status_code, content=bytes(content)).json()
    except (ValueError, RecursionError):
        return response.status_code, None


def _has_token(answer: Any) -> bool:
    """Return whether an answer holds a choice that ended in order, or a vector."""
    if not isinstance(answer, dict):
        return False
    choices, vectors = answer.get("choices"), answer.get("data")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("finish_reason") not in ("error", "abort")
    return isinstance(vectors, list) and bool(vectors) and isinstance(vectors[0], dict) and "embedding" in vectors[0]
