"""Stored answers for similar questions: where a question lies, by its vector from a local backend.

The call goes through the backend's own pool, which is that of a local backend, so that private content stays where it
is. It is no attempt: nobody asked for it, it costs no money, and it has no row in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson

from spillway_router.caching.similar import NoVectorError, SimilarQuestions, TextRefusedError
from spillway_router.core.caching.key import KeyContext, Neighbourhood, neighbourhood_key
from spillway_router.core.caching.question import question_of
from spillway_router.core.caching.vectors import Vector
from spillway_router.http_client.connection import PendingCall, TransportError
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.exchange.state import ExchangeState

MOST_ANSWER_BYTES = 1024 * 1024
"""Of the embedder's answer; a vector of 8,192 numbers takes some 200 KiB."""
_REFUSED = (400, 413, 422)
"""Statuses that speak of the text, as where it has more tokens than the model's window."""


async def neighbourhood_of(
    state: ExchangeState, similar: SimilarQuestions, body: Mapping[str, Any], context: KeyContext
) -> Neighbourhood | None:
    """Return where the question of a request lies; None if it has none that may be compared, or if its embedder gives
    no vector in time."""
    question = question_of(state.facts.endpoint, body, similar.rules.scripts)
    route = state.config.backend_routes.get(similar.rules.embedder)
    if question is None or route is None or not route.backend.local:
        return None
    within_s, private = similar.rules.within_s, not state.facts.privacy.may_leave
    vector = await similar.vector(partial(embedded, route, question.text, within_s, private=private))
    return None if vector is None else Neighbourhood(neighbourhood_key(state.facts, question, context), vector)


async def embedded(route: BackendRoute, text: str, within_s: float, *, private: bool) -> Vector:
    """Return the vector of a text. Raises NoVectorError."""
    body = orjson.dumps({"model": route.backend.model, "input": text, "encoding_format": "float"})
    try:
        head = route.pool.head(route.provider.path("embeddings"), len(body), private=private)
        async with asyncio.timeout(within_s):
            reply = await route.pool.call(head, body, within_s, MOST_ANSWER_BYTES, PendingCall())
    except TimeoutError:
        raise NoVectorError(f"no vector within {within_s * 1000:g} ms") from None
    except TransportError as error:
        raise NoVectorError(str(error)) from error
    if reply.status in _REFUSED:
        raise TextRefusedError(f"it refuses the text with the status {reply.status}")
    if reply.status != 200:
        raise NoVectorError(f"it answered with the status {reply.status}")
    try:
        numbers = orjson.loads(reply.body)["data"][0]["embedding"]
        vector = Vector.of(numbers) if isinstance(numbers, list) else None
    except (ValueError, KeyError, TypeError, IndexError):
        vector = None
    if vector is None:
        raise NoVectorError("its answer has no vector")
    return vector
