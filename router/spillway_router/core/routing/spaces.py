"""Embedding spaces: which backends give vectors that can be compared.

Vectors of two models have nothing to do with each other, even where they are equally long: an index that holds both
finds nonsense, and nothing shows it. So every name that requests can ask for has one space, and a backend of another
space never answers in its place.

The space of a chain is that of its first backend that is known to embed. Where none is known, it is that of the first
one whose provider has the endpoint. It depends on the configured order only, and not on health, load or hints.
"""

from __future__ import annotations

from collections.abc import Iterable

from spillway_router.core.routing.model import Backend, Removed


def serves_embeddings(backend: Backend) -> bool:
    """Return whether requests for embeddings can be sent to the backend."""
    return "embeddings" in backend.endpoints


def space_of(chain: Iterable[Backend]) -> str:
    """Return the space of a chain in its configured order; "" if none of it serves embeddings."""
    possible = [backend for backend in chain if serves_embeddings(backend)]
    first = next((backend for backend in possible if backend.embeds), possible[0] if possible else None)
    return "" if first is None else first.space


def outside(backend: Backend, space: str) -> Removed | None:
    """Return why the backend can't answer a request for vectors of this space; None if it can."""
    if backend.space == space or not serves_embeddings(backend):
        return None
    return Removed(backend.name, "space", f"its vectors lie in the space {backend.space!r}, not in {space!r}")
