"""One contract for all places of stored answers, and the bounds of each."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from spillway_router.caching.interface import AnswerStore, StoreUnavailableError
from spillway_router.caching.memory_store import ENTRY_BYTES, MemoryStore
from spillway_router.caching.redis_store import RedisStore
from spillway_router.caching.sqlite_store import SqliteStore
from spillway_router.testing.redis_server import RedisServer

A, B, C = (bytes([n]) * 32 for n in (1, 2, 3))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def closing(store: AnswerStore) -> AsyncIterator[AnswerStore]:
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AnswerStore:
    if request.param == "memory":
        return MemoryStore(1 << 20, Clock())
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "cache.db", 1 << 20, Clock())
    redis: RedisServer = request.getfixturevalue("redis")
    return RedisStore(redis.url, timeout_s=10.0)


async def test_a_value_is_found_under_its_key_alone_until_it_is_replaced(store: AnswerStore) -> None:
    async with closing(store):
        assert await store.get(A) is None
        await store.put(A, b"one\0\xff", 60)
        await store.put(B, b"", 60)
        assert (await store.get(A), await store.get(B), await store.get(C)) == (b"one\0\xff", b"", None)
        await store.put(A, b"two", 60)
        assert await store.get(A) == b"two"


async def test_memory_forgets_what_is_over_and_what_was_not_used_for_longest() -> None:
    clock = Clock()
    store = MemoryStore(2 * (ENTRY_BYTES + 100), clock)
    await store.put(A, bytes(100), 60)
    await store.put(B, bytes(100), 30)
    assert await store.get(A) is not None
    await store.put(C, bytes(100), 60)
    assert [await store.get(key) is not None for key in (A, B, C)] == [True, False, True]
    await store.put(A, bytes(2 * ENTRY_BYTES + 1_000), 60)
    assert await store.get(A) is None, "a value without room takes the place of the old one all the same"
    clock.now_s += 60
    assert await store.get(C) is None
    assert store.size_bytes == 0


async def test_a_file_outlives_the_router_is_bounded_and_only_for_its_user(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "deep" / "cache.db"
    async with closing(SqliteStore(path, 250, clock)) as store:
        for key in (A, B, C):
            await store.put(key, bytes(100), 60)
        assert [await store.get(key) is not None for key in (A, B, C)] == [False, True, True]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with closing(SqliteStore(path, 250, clock)) as store:
        assert await store.get(C) == bytes(100)
        clock.now_s += 60
        assert await store.get(C) is None
        await store.put(A, bytes(251), 60)
        assert await store.get(A) is None, "a value above the bound is not kept"


async def test_a_broken_file_and_a_server_that_is_gone_are_unavailable(tmp_path: Path, redis: RedisServer) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"no database" * 1_000)
    async with closing(SqliteStore(path, 1 << 20, Clock())) as store:
        with pytest.raises(StoreUnavailableError, match="NotADBError"):
            await store.get(A)
    async with closing(RedisStore(redis.url, timeout_s=10.0)) as store:
        await store.put(A, b"one", 0.0001)
        redis.stop()
        with pytest.raises(StoreUnavailableError, match="ConnectionError of Redis"):
            await store.get(A)
