"""From the config's `ledger.url` to an open ledger."""

from __future__ import annotations

from pathlib import Path

from spillway_router.ledger.base import Ledger, LedgerConfigError
from spillway_router.ledger.sqlite import SqliteLedger

_SQLITE = "sqlite:///"


def open_ledger(url: str) -> Ledger:
    """Open the ledger of a URL: `sqlite:///data/x.db` is relative, `sqlite:////var/lib/x.db` absolute.

    Raises LedgerConfigError for another URL or an unusable place, LedgerUnavailableError if opening fails
    otherwise.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/"):
        # Only the scheme is named: other URLs may carry a password.
        scheme = url.partition("://")[0][:20]
        raise LedgerConfigError(
            f"ledger.url has no usable path or scheme ({scheme!r}); write sqlite:///data/spillway.db, with four "
            "slashes for an absolute path"
        )
    return SqliteLedger.open(Path(path).expanduser())
