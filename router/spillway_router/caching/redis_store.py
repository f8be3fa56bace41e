"""Stored answers in Redis or Valkey, which routers of several machines may share.

The server itself bounds how much it keeps: give it `maxmemory` and `maxmemory-policy allkeys-lru`.
"""

from __future__ import annotations

import math

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from spillway_router.caching.interface import AnswerStore, StoreUnavailableError
from spillway_router.core.caching.key import VERSION

MOST_CONNECTIONS = 32
"""Further calls wait for one of these."""
_PREFIX = b"spillway:answer:%d:" % VERSION


class RedisStore(AnswerStore):
    """A server at a URL of redis-py (`redis://`, `rediss://`, `unix://`). A call takes at most `timeout_s`."""

    leaves_process = True

    def __init__(self, url: str, timeout_s: float) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=MOST_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis: Redis = Redis.from_pool(pool)

    async def get(self, key: bytes) -> bytes | None:
        """Return what is stored and not over."""
        try:
            value = await self._redis.get(_PREFIX + key.hex().encode())
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(_kind(error)) from error
        return value if isinstance(value, bytes) else None

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Store a value for a time."""
        try:
            await self._redis.set(_PREFIX + key.hex().encode(), value, px=max(1, math.floor(ttl_s * 1000)))
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(_kind(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


def _kind(error: Exception) -> str:
    """Return what kind of error it is. Its text may repeat the URL."""
    return f"{type(error).__name__} of Redis"
