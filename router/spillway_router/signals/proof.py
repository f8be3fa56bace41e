"""The proof that an engine works: one token that it generates.

Engines differ in what they serve. The token is requested as a completion, then as a chat, and of an embedding model a
vector: the first route that the engine has decides.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

from spillway_router.signals.engine_client import EngineClient, is_error_of_server

_MOST_BYTES: Final = 1 << 20
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


def _requests(model: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the requests for one token, by path, in the order in which they are tried."""
    limits = {"model": model, "max_tokens": 1, "temperature": 0}
    return (
        ("/v1/completions", {**limits, "prompt": "a"}),
        ("/v1/chat/completions", {**limits, "messages": [{"role": "user", "content": "a"}]}),
        ("/v1/embeddings", {"model": model, "input": "a"}),
    )


async def generates(client: EngineClient, model: str) -> bool:
    """Return whether the engine generates a token now. The caller bounds the time.

    An engine that refuses all three requests as wrong can't be asked. It answers, and that has to do.

    Raises TransportError.
    """
    for path, body in _requests(model):
        reply = await client.post(path, body, "token", _MOST_BYTES)
        if reply.status == HTTPStatus.OK:
            return _has_token(reply.body)
        if is_error_of_server(reply.status) or reply.status in _BUSY or reply.status < HTTPStatus.BAD_REQUEST:
            return False
    return True


def _has_token(content: bytes) -> bool:
    """Return whether an answer holds a choice that ended in order, or a vector."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return False
    if not isinstance(answer, dict):
        return False
    choices, vectors = answer.get("choices"), answer.get("data")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("finish_reason") not in ("error", "abort")
    return isinstance(vectors, list) and bool(vectors) and isinstance(vectors[0], dict) and "embedding" in vectors[0]
