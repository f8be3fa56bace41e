"""Ask the server that stores answers whether it answers, as `spillway check` does."""

from __future__ import annotations

import asyncio

from spillway_router.caching.interface import StoreUnavailableError
from spillway_router.caching.urls import MEMORY, SQLITE
from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import Settings

TIMEOUT_S = 3.0
"""The time limit for the connection and the answer together."""
_ABSENT_KEY = bytes(32)


def cache_warnings(settings: Settings) -> tuple[ConfigProblem, ...]:
    """Return why no answers would be stored in the Redis or Valkey of `cache.store`; none for another store.

    It is a warning, because requests are answered without a cache, and the server may start later.
    """
    store = settings.cache.store
    if not settings.cache.enabled or store == MEMORY or store.startswith(SQLITE):
        return ()
    failure = asyncio.run(_failure(store))
    if not failure:
        return ()
    return (ConfigProblem("cache.store", 0, f"no answer ({failure}); start the server, or check its URL and password"),)


async def _failure(url: str) -> str:
    from spillway_router.caching.redis_store import RedisStore

    store = RedisStore(url, TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await store.get(_ABSENT_KEY)
    except StoreUnavailableError as error:
        return str(error)
    except TimeoutError:
        return f"none within {TIMEOUT_S:g} s"
    finally:
        await store.close()
    return ""
