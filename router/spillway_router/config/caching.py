"""Derives from Settings where answers are stored and by which rules, and says what is wrong with that."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from spillway_router.caching.open import CacheSettings
from spillway_router.config.cache_part import CachePart
from spillway_router.config.load import ConfigProblem
from spillway_router.core.caching.rules import CacheRules

_MIB = 1024 * 1024


def cache_problems(part: CachePart) -> Iterator[ConfigProblem]:
    """Yield what is wrong with the cache of a configuration."""
    if part.needs_redis and importlib.util.find_spec("redis") is None:
        problem = "needs the package redis; install spillway-llm[redis], or use memory or sqlite:///PATH"
        yield ConfigProblem("cache.store", 0, problem)
    if part.max_answer_mb > part.max_mb:
        yield ConfigProblem("cache.max_answer_mb", 0, "is above cache.max_mb, so that the largest answers have no room")


def cache_settings(part: CachePart) -> CacheSettings | None:
    """Return the cache of a configuration; None if it is off."""
    if not part.enabled:
        return None
    rules = CacheRules(
        ttl_s=part.ttl_s,
        most_answer_bytes=int(part.max_answer_mb * _MIB),
        default=part.default,
        by_scope=dict(part.scopes),
        sampled=part.sampled,
        users_apart=part.users_apart,
    )
    return CacheSettings(part.store, int(part.max_mb * _MIB), part.timeout_ms / 1000, rules)
