"""The exceptions that every ledger raises, in one tree."""

from __future__ import annotations


class LedgerError(Exception):
    """The base of all exceptions that the ledger raises."""


class LedgerUnavailableError(LedgerError):
    """The database can't be opened, read or written now; nothing of this call was stored."""


class LedgerFaultError(LedgerUnavailableError):
    """Writing failed in a way that nobody planned for; the cause may be a row of this write."""


class LedgerConfigError(LedgerError):
    """The ledger's URL, folder or schema version can't be used; the message says what to change."""


class LedgerOutdatedError(LedgerConfigError):
    """The ledger has the schema of an older version, and it was opened only to be read."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the ledger {name} was last used by an older Spillway; start the router once, which brings it up to date"
        )


def no_ledger(name: str) -> LedgerConfigError:
    """Return the error for a ledger that does not exist."""
    return LedgerConfigError(
        f"there is no ledger at {name}; a router makes it at its first start, and so does `spillway keys create`. "
        "If you have one elsewhere, pass its configuration with --config, or set ledger.url"
    )


class EntryRejectedError(LedgerError):
    """An entry breaks a rule of the ledger; nothing of this call was stored."""


class EntryConflictError(LedgerError):
    """An entry with the same (request_id, attempt_no, kind) but other content exists, or the attempt was closed before.

    An attempt is either charged or released, never both. What is stored stays.
    """


class LastAdminError(LedgerError):
    """A change would leave no valid key with the role admin; nothing of it was stored."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"{key_id} is the last key with the role admin that is valid. Create another one first, or do it with "
            "`spillway keys` and --force"
        )


class LedgerFullError(LedgerError):
    """The writer's queue is full: paid calls are refused, and local answers continue without a durable row."""


class LedgerClosedError(LedgerError):
    """The writer is closed and accepts no more entries."""
