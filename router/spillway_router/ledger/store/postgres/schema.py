"""The ledger's schema in PostgreSQL: whichever router starts first creates it or brings it up to date."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import psycopg

from spillway_router.ledger.errors import LedgerConfigError, LedgerOutdatedError, no_ledger
from spillway_router.ledger.store.migrations import Migration, begins_acts, missing
from spillway_router.ledger.store.postgres.session import SCHEMA, Connection, rows_of
from spillway_router.ledger.store.sql import note_existing

OLDEST_SERVER = 13
_LOCK = "SELECT pg_advisory_xact_lock(7310014835120411470)"


def migrate(connection: Connection, name: str, migrations: Sequence[Migration]) -> None:
    """Apply the missing migrations in one transaction; routers that start at the same time wait for each other.

    Raises LedgerConfigError for a server, a database or a user that can't be used, and for a schema newer than this
    version; psycopg.Error otherwise.
    """
    _check(connection, name)
    with connection.transaction():
        connection.execute("SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '600s'")
        connection.execute(_LOCK)
        _make_schema(connection, name)
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number integer PRIMARY KEY, title text NOT NULL, applied bigint NOT NULL)"
        )
        applied = {row[0] for row in connection.execute("SELECT number FROM migrations")}
        new, now_ms = missing(migrations, applied, name, "database"), time.time_ns() // 1_000_000
        for migration in new:
            connection.execute(migration.sql.encode())
            row = (migration.number, migration.title, now_ms)
            connection.execute("INSERT INTO migrations VALUES (%s, %s, %s)", row)
        if begins_acts(new):
            note_existing(partial(rows_of, connection), now_ms)


def check_schema(connection: Connection, name: str, migrations: Sequence[Migration]) -> None:
    """Raise LedgerConfigError if there is no ledger, or if its schema is newer or older than this version's."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.migrations",)).fetchone()
    if row is None or row[0] is None:
        raise no_ledger(name)
    applied = {row[0] for row in connection.execute("SELECT number FROM migrations")}
    if missing(migrations, applied, name, "database"):
        raise LedgerOutdatedError(name)


def _check(connection: Connection, name: str) -> None:
    version = connection.info.server_version // 10_000
    if version < OLDEST_SERVER:
        raise LedgerConfigError(f"the ledger {name} is PostgreSQL {version}; {OLDEST_SERVER} or newer is needed")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise LedgerConfigError(
            f"the database of the ledger {name} has the encoding {encoding}; create one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


def _make_schema(connection: Connection, name: str) -> None:
    # CREATE SCHEMA IF NOT EXISTS would need the privilege to create schemas even if the schema exists, so look first.
    if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchone():
        return
    try:
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
    except psycopg.errors.InsufficientPrivilege as error:
        user = connection.info.user
        raise LedgerConfigError(
            f"the user {user} may not create the ledger's tables in {name}; ask an administrator to run "
            f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {user}"
        ) from error
