"""What commands share that embed texts by a local backend, as the router would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spillway_router.commands.common import fail, load

if TYPE_CHECKING:
    from spillway_router.config.assemble import BackendTarget
    from spillway_router.core.caching.vectors import Vector

WITHIN_S = 60.0
"""The longest wait for one vector."""


def embedding_target(path: str | None, name: str | None) -> BackendTarget:
    """Return the backend that embeds: `name`, else cache.semantic.embedder. One that can't is an error."""
    from spillway_router.config.assemble import assembly_of
    from spillway_router.config.load import ConfigError
    from spillway_router.core.routing.spaces import serves_embeddings

    loaded = load(path)
    semantic = loaded.settings.cache.semantic
    name = name or (None if semantic is None else semantic.embedder)
    if name is None:
        fail("name the backend that embeds: set cache.semantic.embedder in spillway.yaml, or give --embedder")
    try:
        target = assembly_of(loaded, datetime.now(UTC).date()).targets.get(name)
    except ConfigError as error:
        fail("The configuration has errors:\n" + "\n".join(f"  - {problem}" for problem in error.problems))
    if target is None or not target.backend.local or not serves_embeddings(target.backend):
        fail(f"{name!r} is no local backend that serves embeddings")
    return target


async def vectors_of(target: BackendTarget, texts: Iterable[str]) -> dict[str, Vector]:
    """Return the vectors of texts, as the router would ask for them. Raises NoVectorError."""
    from spillway_router.caching.similar import NoVectorError, TextRefusedError
    from spillway_router.config.assemble import backend_routes
    from spillway_router.proxy.exchange.similar_answers import embedded

    route = backend_routes({target.backend.name: target}, {})[target.backend.name]
    vectors: dict[str, Vector] = {}
    try:
        for text in texts:
            try:
                vectors[text] = await embedded(route, text, WITHIN_S, private=True)
            except TextRefusedError as error:
                raise NoVectorError(f"{error}; leave out {text[:60]!r}") from error
        return vectors
    finally:
        route.pool.close()
