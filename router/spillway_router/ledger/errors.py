"""How the ledger fails: one tree of exceptions, raised by every implementation."""

from __future__ import annotations


class LedgerError(Exception):
    """Base of everything the ledger raises."""


class LedgerUnavailableError(LedgerError):
    """The database can't be opened, read or written now; nothing of the call was stored."""


class LedgerConfigError(LedgerError):
    """The ledger's URL, folder or schema version can't be used; the message says what to change."""


class EntryRejectedError(LedgerError):
    """An entry breaks a rule of the ledger; nothing of the call was stored."""


class EntryConflictError(LedgerError):
    """An entry with the same (request_id, attempt_no, kind) but other content is already there, or the attempt was
    closed otherwise before (charged and released exclude each other); what is there stands."""


class LedgerFullError(LedgerError):
    """The writer's queue is full: refuse paid calls; local answers go on without a durable row."""


class LedgerClosedError(LedgerError):
    """The writer was closed; it takes no more entries."""
