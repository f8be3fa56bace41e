"""From the config's `ledger.url` to an open ledger."""

from __future__ import annotations

from pathlib import Path

from spillway_router.ledger.errors import LedgerConfigError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def open_ledger(url: str) -> Ledger:
    """Open the ledger of a URL: `sqlite:///data/x.db` is relative, `sqlite:////var/lib/x.db` absolute,
    `postgresql://user:password@host:5432/database` is shared by all routers that name it.

    Raises LedgerConfigError for another URL or an unusable place, LedgerUnavailableError if opening fails
    otherwise.
    """
    if url.startswith(_POSTGRES):
        return _open_postgres(url)
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/"):
        # Only the scheme is named: other URLs may carry a password.
        scheme = url.partition("://")[0][:20]
        raise LedgerConfigError(
            f"ledger.url has no usable path or scheme ({scheme!r}); write sqlite:///data/spillway.db, with four "
            "slashes for an absolute path, or postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    return SqliteLedger.open(Path(path).expanduser())


def _open_postgres(url: str) -> Ledger:
    # The driver is an extra: a router with a SQLite ledger doesn't install it.
    try:
        from spillway_router.ledger.store.postgres.ledger import PostgresLedger
    except ImportError as error:
        raise LedgerConfigError(
            f"a ledger in PostgreSQL needs its driver ({error}): pip install 'spillway[postgres]'"
        ) from error
    return PostgresLedger.open(url)
