"""The provider keys that callers have stored, as a router uses them: sealed in memory too, opened for one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.keys import RECHECK_S
from spillway_router.ledger.tables.provider_keys import ProviderKeyRecord, ProviderKeyTable, ProviderPlace
from spillway_router.ledger.vault import NONCE_BYTES, NOT_CONFIGURED, Vault, VaultError

MOST_PROVIDER_KEYS = 10_000
"""Provider keys of one ledger: every router holds all of them in memory, about 400 bytes each."""
MOST_SECRET = 1000


class ProviderKeys:
    """The provider keys of one ledger, with a snapshot that follows it within a second. Without a vault nothing can be
    stored or used. `secret` belongs to one thread."""

    def __init__(self, table: ProviderKeyTable, vault: Vault | None = None) -> None:
        self._table = table
        self._vault = vault
        self._revision = -1
        self._checked_s = float("-inf")
        self._records: Mapping[ProviderPlace, ProviderKeyRecord] = {}

    def use(self, vault: Vault | None) -> None:
        """Seal and open with another vault from now on."""
        self._vault = vault

    def secret(self, place: ProviderPlace, monotonic_s: float) -> str | None:
        """Return the provider key of an end user, else that of the API key; None if neither is stored.

        Raises VaultError if what is stored can't be opened here, and LedgerUnavailableError if the first read fails.
        """
        records = self._current(monotonic_s)
        record = records.get(place) or records.get(place._replace(user_id=""))
        return None if record is None else self._opened(record)

    def put(self, record_of: ProviderPlace, secret: str, nonce: bytes, now_ms: int, by: str = "") -> bool:
        """Store a provider key in place of the one before; return False if no valid API key has its id.

        `nonce` are 12 bytes of `secrets.token_bytes`. Raises VaultError and LedgerUnavailableError.
        """
        if not secret or len(secret) > MOST_SECRET or not (secret.isascii() and secret.isprintable()):
            raise VaultError(f"a provider key is 1 to {MOST_SECRET} printable ASCII characters")
        vault = self._needed()
        places = [record.place for record in self._table.all()]
        if len(places) >= MOST_PROVIDER_KEYS and record_of not in places:
            raise VaultError(f"the ledger holds {MOST_PROVIDER_KEYS} provider keys, which is the limit; remove some")
        sealed = vault.seal(secret, record_of.row, nonce)
        return self._changed(self._table.put(ProviderKeyRecord(record_of, sealed, now_ms), by))

    def remove(self, place: ProviderPlace, by: str = "") -> bool:
        """Delete a provider key durably; return False if there is none."""
        return self._changed(self._table.remove(place, by))

    def stored(self, key_id: str) -> tuple[ProviderKeyRecord, ...]:
        """Return the provider keys of an API key, as they are sealed."""
        return tuple(record for record in self._table.all() if record.place.key_id == key_id)

    def seal_again(self, random: Callable[[int], bytes]) -> int:
        """Seal all of them with the first secret key, and return their number. `random` is `secrets.token_bytes`.

        Raises VaultError at the first one that can't be opened.
        """
        vault, records = self._needed(), self._table.all()
        for record in records:
            sealed = vault.seal(self._opened(record), record.place.row, random(NONCE_BYTES))
            self._changed(self._table.put(ProviderKeyRecord(record.place, sealed, record.stored_ms)))
        return len(records)

    def _current(self, monotonic_s: float) -> Mapping[ProviderPlace, ProviderKeyRecord]:
        if monotonic_s - self._checked_s >= RECHECK_S:
            self._checked_s = monotonic_s
            try:
                revision = self._table.revision()
                if revision != self._revision:
                    self._records = {record.place: record for record in self._table.all()}
                    self._revision = revision
            except LedgerError:
                if self._revision < 0:
                    raise
        return self._records

    def _opened(self, record: ProviderKeyRecord) -> str:
        try:
            return self._needed().open(record.sealed, record.place.row)
        except VaultError as error:
            raise VaultError(f"the stored key of {record.place.provider} can't be used: {error}") from None

    def _needed(self) -> Vault:
        if self._vault is None:
            raise VaultError(NOT_CONFIGURED)
        return self._vault

    def _changed(self, changed: bool) -> bool:
        self._checked_s = float("-inf")
        return changed
