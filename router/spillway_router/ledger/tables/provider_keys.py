"""The provider keys that callers have stored, sealed (vault.py): one row per API key, end user and provider.

A key of an end user goes before the one that all users of the API key share, whose `user_id` is empty. Every change is
an act, which names the provider and holds neither the secret nor what is stored of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spillway_router.ledger.records import Rows
from spillway_router.ledger.tables.acts import Change


class ProviderPlace(NamedTuple):
    """Whose key of which provider: an API key, the pseudonym of an end user ("": all of them), and the provider."""

    key_id: str
    user_id: str
    provider: str

    @property
    def row(self) -> str:
        """The place as what its secret is bound to."""
        return "\0".join(self)


@dataclass(frozen=True, slots=True)
class ProviderKeyRecord:
    """A stored provider key: where, what is sealed, and when it was stored (epoch milliseconds)."""

    place: ProviderPlace
    sealed: bytes
    stored_ms: int


class ProviderKeyTable(ABC):
    """Provider keys in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    `by` says who does it; if it is empty, the ledger's `actor` does.
    """

    @abstractmethod
    def put(self, record: ProviderKeyRecord, by: str = "") -> bool:
        """Store a provider key in place of the one before; return False if no valid API key has its id."""

    @abstractmethod
    def remove(self, place: ProviderPlace, by: str = "") -> bool:
        """Delete a provider key; return False if there is none."""

    @abstractmethod
    def all(self) -> tuple[ProviderKeyRecord, ...]:
        """Return the provider keys of API keys that are not revoked, by their places."""

    @abstractmethod
    def revision(self) -> int:
        """Return a number that grows whenever any process changes one; cheap enough to call once a second."""


_PUT = (
    "INSERT INTO provider_keys (key_id, user_id, provider, sealed, stored_ms)"
    " SELECT id, ?, ?, ?, ? FROM api_keys WHERE id = ? AND revoked IS NULL"
    " ON CONFLICT (key_id, user_id, provider) DO UPDATE SET sealed = excluded.sealed, stored_ms = excluded.stored_ms"
    " RETURNING key_id"
)
_REMOVE = "DELETE FROM provider_keys WHERE key_id = ? AND user_id = ? AND provider = ? RETURNING key_id"
_ALL = (
    "SELECT key_id, user_id, provider, sealed, stored_ms FROM provider_keys JOIN api_keys ON api_keys.id = key_id"
    " WHERE api_keys.revoked IS NULL ORDER BY key_id, user_id, provider"
)


class SqlProviderKeys(ProviderKeyTable):
    """A `ProviderKeyTable` in SQL that both SQLite and PostgreSQL understand; its parts are those of `SqlKeys`."""

    def __init__(
        self,
        read: Callable[[str], Rows],
        change: Callable[[str, Sequence[Any], Change], bool],
        revision: Callable[[], int],
    ) -> None:
        self._read = read
        self._change = change
        self._revision = revision

    def put(self, record: ProviderKeyRecord, by: str = "") -> bool:
        place = record.place
        values = (place.user_id, place.provider, record.sealed, record.stored_ms, place.key_id)
        return self._change(_PUT, values, stored_act(place, by))

    def remove(self, place: ProviderPlace, by: str = "") -> bool:
        return self._change(_REMOVE, place, removed_act(place, by))

    def all(self) -> tuple[ProviderKeyRecord, ...]:
        return tuple(ProviderKeyRecord(ProviderPlace(*row[:3]), bytes(row[3]), int(row[4])) for row in self._read(_ALL))

    def revision(self) -> int:
        return self._revision()


def stored_act(place: ProviderPlace, by: str) -> Change:
    """Return the change that storing a provider key is."""
    return Change("provider_key.set", place.key_id, {"provider": place.provider, "user_id": place.user_id}, by)


def removed_act(place: ProviderPlace, by: str) -> Change:
    """Return the change that deleting a provider key is."""
    return Change("provider_key.remove", place.key_id, {"provider": place.provider, "user_id": place.user_id}, by)
