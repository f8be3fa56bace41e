"""How the cache is used: for whom, for how long, and for which requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spillway_router.core.routing.model import CacheHint, Caller


@dataclass(frozen=True, slots=True)
class SemanticRules:
    """When a similar question gets a stored answer: from the cosine similarity `threshold` on, by the vectors of the
    local backend `embedder`, which is waited for `within_s` seconds. `scripts` are those that the threshold holds for,
    `model` is the embedding model."""

    embedder: str
    model: str
    threshold: float
    scripts: frozenset[str]
    within_s: float


@dataclass(frozen=True, slots=True)
class CacheRules:
    """Answers are given again for `ttl_s` seconds, and only those of at most `most_answer_bytes`.

    `default` says whether requests use the cache that don't say so themselves, and `by_scope` the same for the scopes
    key:ID and tier:NAME. `sampled`: requests with any temperature may use it. `users_apart`: the users of a key, as
    requests name them, get nothing from each other.
    """

    ttl_s: float = 3600.0
    most_answer_bytes: int = 1024 * 1024
    default: bool = False
    by_scope: Mapping[str, bool] = field(default_factory=dict)
    sampled: bool = False
    users_apart: bool = False
    semantic: SemanticRules | None = None
    """None: only requests of the same content get a stored answer."""

    def hint_for(self, hint: CacheHint, caller: Caller) -> CacheHint:
        """Return what a request of this caller asks of the cache: what its header says, else what its key does, else
        its tier, else the default."""
        if hint:
            return hint
        own = self.by_scope.get(f"key:{caller.key_id}") if caller.key_id else None
        if own is None and caller.tier:
            own = self.by_scope.get(f"tier:{caller.tier}")
        return "use" if (self.default if own is None else own) else "off"
