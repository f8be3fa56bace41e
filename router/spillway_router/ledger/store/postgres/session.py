"""One connection to PostgreSQL behind a lock, opened on first use and reopened after it broke.

Every wait is bounded: connecting, a statement, a lock held by another router, and the network itself (a peer that
vanished silently). This is the only place that turns database errors into ledger errors; none of them shows the
password.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from spillway_router.core.redaction import Redactor
from spillway_router.ledger.errors import EntryRejectedError, LedgerConfigError, LedgerUnavailableError
from spillway_router.ledger.records import Rows

SCHEMA = "spillway"
"""The tables live in a schema of their own, because PostgreSQL 15 and later lets few users create any in `public`."""

Connection = psycopg.Connection[tuple[Any, ...]]
_T = TypeVar("_T")

# Seconds and milliseconds, as libpq expects them; a value set in the URL wins.
_NETWORK: dict[str, str | int | None] = {
    "application_name": "spillway",
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "target_session_attrs": "read-write",
}
_PORTS = re.compile(r"[0-9,]*")
"""The port, or one for each of several hosts."""
_LOCK_TIMEOUT_MS = 5_000
_HUNG_CLIENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class DatabaseAddress:
    """Where a ledger is: `conninfo` for libpq (contains the password), `name` for people (does not contain it)."""

    conninfo: str
    name: str
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return f"DatabaseAddress({self.name})"

    def redacted(self, error: BaseException) -> str:
        """Return the error's text in one line, without the password, should a driver ever include it."""
        return Redactor(self.secrets).cut(" ".join(str(error).split()))


def database_address(url: str) -> DatabaseAddress:
    """Read a `postgresql://` URL. Raises LedgerConfigError saying what to change."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's text may quote the password, and so may its traceback.
        raise _unreadable() from None
    if (
        _PORTS.fullmatch(str(given.get("port", ""))) is None
        or "@" in f"{given.get('host', '')}{given.get('dbname', '')}"
    ):
        raise _unreadable()  # a slash in the password ends the host, and the rest of it would be shown as port and name
    if not given.get("dbname"):
        raise LedgerConfigError("ledger.url names no database; write postgresql://USER:PASSWORD@HOST:5432/DATABASE")
    where = f"{given.get('host', '')}" + (f":{given['port']}" if given.get("port") else "")
    name = f"postgresql://{where}/{given['dbname']}"
    secrets = tuple(str(given[name]) for name in ("password", "sslpassword") if given.get(name))
    conninfo = make_conninfo("", **{**_NETWORK, **given})
    return DatabaseAddress(conninfo, name, secrets)


def _unreadable() -> LedgerConfigError:
    return LedgerConfigError(
        "ledger.url can't be read; write postgresql://USER:PASSWORD@HOST:5432/DATABASE with special characters in "
        "the password percent-encoded (@ is %40, / is %2F, # is %23)"
    )


def rows_of(connection: Connection, sql: str, values: Sequence[Any]) -> Rows:
    """Run a statement with ? for values and return its rows, none if it has no result."""
    cursor = connection.execute(sql.replace("?", "%s"), values)
    return cursor.fetchall() if cursor.description is not None else []


class PostgresSession:
    """A connection for one purpose. Methods may be called from any thread and wait for each other."""

    def __init__(
        self, address: DatabaseAddress, statement_timeout_ms: int, settings: Mapping[str, str] | None = None
    ) -> None:
        self._address = address
        options = {
            "search_path": SCHEMA,
            "synchronous_commit": "on",
            "statement_timeout": str(statement_timeout_ms),
            "lock_timeout": str(_LOCK_TIMEOUT_MS),
            "idle_in_transaction_session_timeout": str(_HUNG_CLIENT_MS),
            **(settings or {}),
        }
        self._options = " ".join(f"-c {name}={value}" for name, value in options.items())
        self._lock = Lock()
        self._connection: Connection | None = None
        self._closed = False

    def run(self, work: Callable[[Connection], _T], *, repeatable: bool = True) -> _T:
        """Run `work` on the connection and return its result.

        `repeatable` says that running it twice is harmless: a connection that has died since its last use (a restarted
        server, a firewall) is then replaced once, and the caller doesn't notice.

        Raises EntryRejectedError if the database refused the data, and LedgerUnavailableError if it can't be used now.
        In the latter case nothing was stored, or it is unknown whether everything was.
        """
        try:
            with self._lock:
                return self._run(work, repeatable)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise EntryRejectedError(f"the ledger refused an entry: {self._address.redacted(error)}") from error
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    @contextlib.contextmanager
    def reading(self, statement_timeout_ms: int) -> Iterator[Connection]:
        """Read the database as it is at one moment, while others may continue to write.

        Raises LedgerUnavailableError if the database can't be used now.
        """
        try:
            with self._lock:
                # A connection that died since its last use is replaced here, before anything was read.
                self._run(lambda connection: connection.execute("SELECT 1"), repeatable=True)
                connection = self._open()
                try:
                    with connection.transaction():
                        # Not READ ONLY: a temporary table may be needed on the way.
                        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                        connection.execute(f"SET LOCAL statement_timeout = {statement_timeout_ms:d}".encode())
                        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                        yield connection
                except psycopg.OperationalError:
                    self._drop()
                    raise
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: psycopg.Error) -> LedgerUnavailableError:
        text = self._address.redacted(error)
        return LedgerUnavailableError(f"the ledger {self._address.name} can't be used now: {text}")

    def close(self) -> None:
        """Close the connection for good; harmless when called twice."""
        with self._lock:
            self._closed = True
            self._drop()

    def _run(self, work: Callable[[Connection], _T], repeatable: bool) -> _T:
        reused = self._connection is not None
        try:
            return self._attempt(work)
        except psycopg.OperationalError:
            if not (reused and repeatable and self._connection is None):
                raise
        return self._attempt(work)

    def _attempt(self, work: Callable[[Connection], _T]) -> _T:
        connection = self._open()
        try:
            return work(connection)
        except psycopg.errors.ReadOnlySqlTransaction:
            self._drop()  # the primary became a standby; the next call looks for the new one
            raise
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
                self._drop()
            raise

    def _open(self) -> Connection:
        if self._closed:
            raise LedgerUnavailableError(f"the ledger {self._address.name} was closed")
        if self._connection is None:
            given = conninfo_to_dict(self._address.conninfo).get("options")
            options = f"{given} {self._options}" if given else self._options
            self._connection = psycopg.connect(self._address.conninfo, autocommit=True, options=options)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
