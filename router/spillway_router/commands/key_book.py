"""Where `spillway keys` reads and changes API keys: the ledger of the configuration, or a running router."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from spillway_router.commands.common import fail, load, now_ms, opened
from spillway_router.commands.running_router import LedgerOrRouter, RouterAddress, ask_json

if TYPE_CHECKING:
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.records import KeyRecord
    from spillway_router.ledger.store.open import Access


class KeyBook(ABC):
    """API keys in the words of `tables/key_terms.py`. What can't be done ends the command with the reason."""

    @abstractmethod
    def keys(self) -> list[dict[str, Any]]:
        """Return all keys, without their secrets."""

    @abstractmethod
    def key(self, key_id: str) -> dict[str, Any]:
        """Return one key."""

    @abstractmethod
    def create(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Create a key; `key` of what is returned is its secret."""

    @abstractmethod
    def change(self, key_id: str, terms: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        """Change a key."""

    @abstractmethod
    def rotate(self, key_id: str, grace: str) -> dict[str, Any]:
        """Give a key a new secret, which is `key` of what is returned."""

    @abstractmethod
    def revoke(self, key_id: str, *, force: bool) -> dict[str, Any]:
        """Revoke a key."""


@contextmanager
def key_book(place: LedgerOrRouter, access: Access) -> Iterator[KeyBook]:
    """Open the keys of a router, or those of the configuration's ledger."""
    from spillway_router.ledger.errors import LedgerError

    if place.router is not None:
        yield RouterKeys(place.router)
        return
    with opened(load(place.config), access) as ledger:
        if access == "create":
            typer.echo(f"ledger: {ledger.name}", err=True)
        try:
            yield LedgerKeys(ledger)
        except LedgerError as error:
            fail(str(error))


class LedgerKeys(KeyBook):
    """The keys of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        from spillway_router.ledger.tables.keys import KeyStore

        self._store = KeyStore(ledger.keys)

    def keys(self) -> list[dict[str, Any]]:
        from spillway_router.ledger.tables.key_terms import shown

        return [shown(record) for record in self._store.list()]

    def key(self, key_id: str) -> dict[str, Any]:
        from spillway_router.ledger.tables.key_terms import shown

        record = self._store.get(key_id)
        if record is None:
            fail(f"no key has the ID {key_id}; `spillway keys list` shows all keys")
        return shown(record)

    def create(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        from spillway_router.ledger.tables.key_terms import spec_fields
        from spillway_router.ledger.tables.keys import KeySpec

        spec = KeySpec(**spec_fields(terms, now_ms()))
        created = self._store.create(spec, secrets.token_bytes(6), secrets.token_bytes(32), now_ms())
        return {**self.key(created.record.id), "key": created.token}

    def change(self, key_id: str, terms: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        from spillway_router.ledger.tables.key_terms import spec_fields
        from spillway_router.ledger.tables.keys import spec_of

        spec = replace(spec_of(self._valid(key_id)), **spec_fields(terms, now_ms()))
        self._store.set(key_id, spec, now_ms(), force=force)
        return self.key(key_id)

    def rotate(self, key_id: str, grace: str) -> dict[str, Any]:
        from spillway_router.ledger.tables.key_terms import duration_ms

        until_ms = now_ms() + duration_ms(grace, "grace")
        self._valid(key_id)
        token = self._store.rotate(key_id, secrets.token_bytes(32), until_ms)
        return {**self.key(key_id), "key": token}

    def revoke(self, key_id: str, *, force: bool) -> dict[str, Any]:
        if not self._store.revoke(key_id, now_ms(), force=force):
            fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")
        return self.key(key_id)

    def _valid(self, key_id: str) -> KeyRecord:
        record = self._store.get(key_id)
        if record is not None and record.revoked is None:
            return record
        return fail(f"no valid key has the ID {key_id}; `spillway keys list` shows all keys")


class RouterKeys(KeyBook):
    """The keys of a running router, which a key with the role admin manages."""

    def __init__(self, router: RouterAddress) -> None:
        self._router = router

    def keys(self) -> list[dict[str, Any]]:
        return list(ask_json(self._router, "GET", "/admin/keys")["keys"])

    def key(self, key_id: str) -> dict[str, Any]:
        return self._ask("GET", _place(key_id))

    def create(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("POST", "/admin/keys", terms)

    def change(self, key_id: str, terms: Mapping[str, Any], *, force: bool) -> dict[str, Any]:
        self._no_force(force)
        return self._ask("PATCH", _place(key_id), terms)

    def rotate(self, key_id: str, grace: str) -> dict[str, Any]:
        return self._ask("POST", f"{_place(key_id)}/rotate", {"grace": grace})

    def revoke(self, key_id: str, *, force: bool) -> dict[str, Any]:
        self._no_force(force)
        return self._ask("DELETE", _place(key_id))

    def _ask(self, method: str, path: str, terms: Mapping[str, Any] | None = None) -> dict[str, Any]:
        body = None if terms is None else {name: value for name, value in terms.items() if value is not None}
        answer: dict[str, Any] = ask_json(self._router, method, path, body)
        return answer

    def _no_force(self, force: bool) -> None:
        if force:
            fail("--force works on the ledger only: run the command on the router's machine, without --url")


def _place(key_id: str) -> str:
    from urllib.parse import quote

    return f"/admin/keys/{quote(key_id, safe='')}"
