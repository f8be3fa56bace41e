"""One real PostgreSQL server per test session, an empty database per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spillway_router.testing.postgres_server import PostgresServer, ServerMissingError, find_binaries, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server, started at the first test that asks for it (about 2 s)."""
    try:
        find_binaries()
    except ServerMissingError as error:
        pytest.skip(str(error))
    with postgres_server(durable=False) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """The URL of a database that is this test's own."""
    return postgres.new_database()
