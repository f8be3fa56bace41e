"""The table of API keys. It is apart from keys.py, which is compiled: interpreted ledgers can't inherit from a
compiled class."""

from __future__ import annotations

from typing import Protocol

from spillway_router.ledger.records import (
    KeyRecord,
)


class KeyTable(Protocol):
    """API keys in the ledger's database."""

    def add_key(self, record: KeyRecord) -> None:
        """Store a new key durably. Raises EntryConflictError if the id is taken."""

    def keys(self) -> tuple[KeyRecord, ...]:
        """All keys, revoked ones too, oldest first."""

    def revoke_key(self, key_id: str, at_ms: int) -> bool:
        """Mark a key revoked durably; False if there is no such key that is still valid."""

    def keys_revision(self) -> int:
        """A number that grows with every change of the keys, by whichever process; cheap enough for once a
        second."""
