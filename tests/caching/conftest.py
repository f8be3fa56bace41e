"""A real Redis server for the tests that store answers there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spillway_router.testing.redis_server import RedisMissingError, RedisServer, find_program, redis_server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of this test's own, empty (it starts in some 20 ms)."""
    try:
        find_program()
    except RedisMissingError as error:
        pytest.skip(str(error))
    with redis_server() as server:
        yield server
