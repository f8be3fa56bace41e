"""Open the ledger that the configuration's `ledger.url` names."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

from spillway_router.ledger.errors import LedgerConfigError, LedgerOutdatedError, no_ledger
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.sqlite.file import check_place
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


Access = Literal["create", "write", "read"]
"""How a ledger is opened. `create` makes it or brings its schema up to date, `write` does that to one that exists,
and `read` changes nothing at all."""


def open_ledger(url: str, access: Access = "create") -> Ledger:
    """Open the ledger of a URL.

    `sqlite:///data/x.db` is a relative path, `sqlite:////var/lib/x.db` an absolute one. All routers that name the same
    `postgresql://user:password@host:5432/database` share that ledger.

    Raises LedgerConfigError for any other URL, for a path or database that can't be used, and with `write` or `read`
    where there is no ledger; LedgerUnavailableError if opening fails for another reason.
    """
    if url.startswith(_POSTGRES):
        return _open_postgres(url, access)
    path = ledger_file(url)
    if access == "read":
        return SqliteLedger.open_to_read(path)
    if access == "write" and not path.exists():
        raise no_ledger(str(path))
    return SqliteLedger.open(path)


def ledger_file(url: str) -> Path:
    """Return the file of a `sqlite:///` URL. Raises LedgerConfigError for any other URL."""
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/"):
        # The message names only the scheme, because other URLs may contain a password.
        scheme = url.partition("://")[0][:20]
        raise LedgerConfigError(
            f"ledger.url has no usable path or scheme ({scheme!r}); write sqlite:///data/spillway.db, with four "
            "slashes for an absolute path, or postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    return Path(path).expanduser()


def check_ledger(url: str, *, offline: bool = False) -> None:
    """Raise LedgerError if a router could not use the ledger of a URL, without making one. `offline`: no database
    server is asked."""
    if url.startswith(_POSTGRES) and offline:
        return
    if not url.startswith(_POSTGRES) and not ledger_file(url).exists():
        check_place(ledger_file(url))
        return
    with suppress(LedgerOutdatedError):  # the router brings it up to date
        open_ledger(url, "read").close()


def _open_postgres(url: str, access: Access) -> Ledger:
    # The driver is an extra, which a router with a SQLite ledger doesn't install.
    try:
        from spillway_router.ledger.store.postgres.ledger import PostgresLedger
    except ImportError as error:
        raise LedgerConfigError(
            f"a ledger in PostgreSQL needs its driver ({error}): in the checkout, run pip install '.[postgres]'"
        ) from error
    return PostgresLedger.open_to_read(url) if access == "read" else PostgresLedger.open(url)
