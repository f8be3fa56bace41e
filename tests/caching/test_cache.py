"""The cache over a store that is down or frozen: requests wait a moment at most, and the log says so once."""

from __future__ import annotations

import logging

import pytest

from spillway_router.caching.cache import MOST_PENDING, PAUSE_S, AnswerCache
from spillway_router.caching.redis_store import RedisStore
from spillway_router.core.caching.rules import CacheRules
from spillway_router.testing.redis_server import RedisServer

KEY = bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("how", ["frozen", "gone"])
async def test_an_outage_is_a_miss_that_is_logged_once_and_ends(
    how: str, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    cache = AnswerCache(RedisStore(redis.url, 5.0), CacheRules(), timeout_s=0.05, clock=clock)
    cache.put(KEY, b"one", 60)
    await cache.settled()
    assert await cache.get(KEY) == b"one"
    if how == "frozen":
        redis.freeze()
    else:
        redis.stop()
    with caplog.at_level(logging.WARNING, "spillway.cache"):
        assert [await cache.get(KEY) for _ in range(3)] == [None] * 3
        assert (cache.counts["failed"], cache.is_up) == (1, False), "left alone for a moment"
        cache.put(KEY, b"two", 60)
        await cache.settled()
        assert cache.counts["dropped"] == 1
        clock.now_s += PAUSE_S
        assert await cache.get(KEY) is None
        assert cache.counts["failed"] == 2
        if how == "frozen":
            redis.thaw()
        else:
            redis.start()
        clock.now_s += PAUSE_S
        assert await cache.get(KEY) == (b"one" if how == "frozen" else None)
    assert cache.is_up
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "unreachable" in caplog.messages[0]
    assert caplog.messages[1] == "the cache is reachable again"
    await cache.close()


async def test_answers_beyond_the_bound_are_dropped(redis: RedisServer) -> None:
    cache = AnswerCache(RedisStore(redis.url, 20.0), CacheRules(), timeout_s=5.0, clock=Clock())
    for n in range(MOST_PENDING + 5):
        cache.put(bytes([n]) * 32, b"x", 60)
    await cache.close()
    assert (cache.counts["stored"], cache.counts["dropped"]) == (MOST_PENDING, 5)
