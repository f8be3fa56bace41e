"""Open the ledger that the configuration's `ledger.url` names."""

from __future__ import annotations

from pathlib import Path

from spillway_router.ledger.errors import LedgerConfigError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


def open_ledger(url: str) -> Ledger:
    """Open the ledger of a URL.

    `sqlite:///data/x.db` is a relative path, `sqlite:////var/lib/x.db` an absolute one. All routers that name the same
    `postgresql://user:password@host:5432/database` share that ledger.

    Raises LedgerConfigError for any other URL and for a path or database that can't be used, LedgerUnavailableError if
    opening fails for another reason.
    """
    if url.startswith(_POSTGRES):
        return _open_postgres(url)
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/"):
        # The message names only the scheme, because other URLs may contain a password.
        scheme = url.partition("://")[0][:20]
        raise LedgerConfigError(
            f"ledger.url has no usable path or scheme ({scheme!r}); write sqlite:///data/spillway.db, with four "
            "slashes for an absolute path, or postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    return SqliteLedger.open(Path(path).expanduser())


def _open_postgres(url: str) -> Ledger:
    # The driver is an extra, which a router with a SQLite ledger doesn't install.
    try:
        from spillway_router.ledger.store.postgres.ledger import PostgresLedger
    except ImportError as error:
        raise LedgerConfigError(
            f"a ledger in PostgreSQL needs its driver ({error}): in the checkout, run pip install '.[postgres]'"
        ) from error
    return PostgresLedger.open(url)
