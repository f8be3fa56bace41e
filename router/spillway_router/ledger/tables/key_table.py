"""The table of API keys in the ledger's database.

It is apart from keys.py, which makes and checks keys: that module runs compiled on the hot path, and interpreted
classes such as `SqlKeys` cannot inherit from a compiled one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

from spillway_router.ledger.errors import EntryConflictError, LastAdminError
from spillway_router.ledger.records import KeyRecord, Rows
from spillway_router.ledger.tables.acts import Change, key_fields, without_secrets

KeyActKind = Literal["key.set", "key.rotate", "key.revoke"]


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What is to become of a valid key: the fields that are set.

    `by` says who does it; if it is empty, the ledger's `actor` does. With `admin_left_ms`, nothing changes unless
    another key with the role admin is valid at that time (epoch milliseconds) where this one has that role.
    """

    kind: KeyActKind
    key_id: str
    fields: Mapping[str, Any]
    by: str = ""
    admin_left_ms: int | None = None


class KeyTable(ABC):
    """API keys in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def add(self, record: KeyRecord, by: str = "") -> None:
        """Store a new key, made by `by` (the ledger's `actor` if empty). Raises EntryConflictError if the id is
        taken."""

    @abstractmethod
    def all(self) -> tuple[KeyRecord, ...]:
        """Return all keys, including revoked ones, oldest first."""

    @abstractmethod
    def change(self, change: KeyChange) -> bool:
        """Set some fields of a valid key; return False if no valid key has this id.

        Raises LastAdminError if the change asks that an administrator is left, and none would be.
        """

    def revoke(self, key_id: str, now_ms: int) -> bool:
        """Mark a key as revoked, whoever is left; return False if no valid key has this id."""
        return self.change(KeyChange("key.revoke", key_id, {"revoked": now_ms}))

    @abstractmethod
    def revision(self) -> int:
        """Return a number that grows whenever any process changes a key; cheap enough to call once a second."""


_NAMES = tuple(f.name for f in fields(KeyRecord))
_row = attrgetter(*_NAMES)
_ADD = (
    f"INSERT INTO api_keys ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT DO NOTHING RETURNING id"
)
_ADMIN_LEFT = (
    " AND (role <> 'admin' OR EXISTS (SELECT 1 FROM api_keys AS other WHERE other.id <> api_keys.id"
    " AND other.role = 'admin' AND other.revoked IS NULL AND (other.expires IS NULL OR other.expires > ?)))"
)
_ALL = f"SELECT {', '.join(_NAMES)} FROM api_keys ORDER BY created, id"  # noqa: S608


ChangeKeys = Callable[[str, Sequence[Any], Change], bool]


class SqlKeys(KeyTable):
    """A `KeyTable` in SQL that both SQLite and PostgreSQL understand.

    `read` runs a SELECT without values. `change` runs a statement that changes a key, with the act that it is, and
    returns whether it did; the same transaction then increments the revision, which `revision` reads.
    """

    def __init__(self, read: Callable[[str], Rows], change: ChangeKeys, revision: Callable[[], int]) -> None:
        self._read = read
        self._change = change
        self._revision = revision

    def add(self, record: KeyRecord, by: str = "") -> None:
        if not self._change(_ADD, _row(record), Change("key.create", record.id, key_fields(record), by)):
            raise key_exists(record.id)

    def all(self) -> tuple[KeyRecord, ...]:
        rows = [dict(zip(_NAMES, row, strict=True)) for row in self._read(_ALL)]
        return tuple(KeyRecord(**{**row, "may_route": bool(row["may_route"])}) for row in rows)

    def change(self, change: KeyChange) -> bool:
        key_id, fields, guarded = change.key_id, change.fields, change.admin_left_ms is not None
        settings = ", ".join(f"{name} = ?" for name in fields if name in _NAMES)
        statement = f"UPDATE api_keys SET {settings} WHERE id = ? AND revoked IS NULL"  # noqa: S608
        values = (*fields.values(), key_id, *((change.admin_left_ms,) if guarded else ()))
        act = Change(change.kind, key_id, without_secrets(fields), change.by)
        changed = self._change(f"{statement}{_ADMIN_LEFT if guarded else ''} RETURNING id", values, act)
        if not changed and guarded and any(key.id == key_id and key.revoked is None for key in self.all()):
            raise LastAdminError(key_id)
        return changed

    def revision(self) -> int:
        return self._revision()


def key_exists(key_id: str) -> EntryConflictError:
    """Return the error for a new key whose id is taken."""
    return EntryConflictError(f"a key with the id {key_id} exists; create it again")
