"""API keys: `sk-spill-<id>-<secret>`, a public id and a 256-bit secret of which only the SHA-256 is stored.

A fast hash is right here, because a secret of 256 random bits can't be guessed. Checking a key on the hot path is one
dictionary look-up and one constant-time comparison on a snapshot. The snapshot is read again when the keys' revision in
the database has changed, which `spillway keys` in another process causes too. The revision is read at most once per
`every_s` seconds, so a revoked key works at most that much longer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import get_args

from spillway_router.core.frozen import fast_frozen
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.records import (
    KeyPrivacy,
    KeyRecord,
    Role,
)
from spillway_router.ledger.tables.key_table import KeyTable

PREFIX = "sk-spill-"
SECRET_BYTES = 32
ID_BYTES = 6
RECHECK_S = 1.0
_MAX_TOKEN = 200
_NO_KEY = bytes(32)  # the digest to compare with if the id is unknown, so that both cases take the same time


class KeySpecError(LedgerError):
    """A key can't be created as requested; the message says what to change."""


@fast_frozen(frozen=True, slots=True)
class KeySpec:
    """What a new key may do. `name` and `tier` are free text of at most 100 characters."""

    name: str
    role: Role = "inference"
    tier: str = ""
    privacy: KeyPrivacy = "any"
    may_route: bool = False


@fast_frozen(frozen=True, slots=True)
class NewKey:
    """A new key at the only time at which its token is known: show `token` once, and store `record`."""

    token: str
    record: KeyRecord


class KeyRing:
    """An immutable snapshot of all valid keys; `verify` is on the hot path."""

    __slots__ = ("_by_id",)

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._by_id: Mapping[str, KeyRecord] = {r.id: r for r in records if r.revoked is None}

    def __len__(self) -> int:
        return len(self._by_id)

    def verify(self, token: str) -> KeyRecord | None:
        """Return the key of this token, or None if the token is malformed, unknown, revoked or wrong. Never raises."""
        if len(token) > _MAX_TOKEN or not token.startswith(PREFIX):
            return None
        key_id, _, secret = token[len(PREFIX) :].partition("-")
        record = self._by_id.get(key_id)
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        matches = hmac.compare_digest(digest, record.secret_sha256 if record else _NO_KEY)
        return record if matches else None


class KeyStore:
    """The keys of one database, with a snapshot that follows it. `verify` and `ring` belong to one thread."""

    def __init__(self, table: KeyTable, every_s: float = RECHECK_S) -> None:
        self._table = table
        self._every_s = every_s
        self._revision = -1
        self._checked_s = float("-inf")
        self._ring = KeyRing(())

    def ring(self, monotonic_s: float) -> KeyRing:
        """Return the snapshot, first bringing it up to date if the last check is `every_s` seconds ago.

        Raises LedgerUnavailableError if the first read fails. Later failures keep the snapshot, because an unreadable
        database must not lock everyone out.
        """
        if monotonic_s - self._checked_s >= self._every_s:
            self._checked_s = monotonic_s
            try:
                self._reload()
            except LedgerError:
                if self._revision < 0:
                    raise
        return self._ring

    def verify(self, token: str, monotonic_s: float) -> KeyRecord | None:
        """Return the valid key of this token, or None."""
        return self.ring(monotonic_s).verify(token)

    def create(self, spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int) -> NewKey:
        """Store a new key durably, made from 6 (`key_id`) and 32 (`secret`) bytes of `secrets.token_bytes`.

        Raises KeySpecError for an invalid name, role, tier or privacy, EntryConflictError if the id is taken.
        """
        new = mint(spec, key_id, secret, now_ms)
        self._table.add(new.record)
        self._checked_s = float("-inf")
        return new

    def revoke(self, key_id: str, now_ms: int) -> bool:
        """Revoke a key durably; return False if no valid key has this id."""
        revoked = self._table.revoke(key_id, now_ms)
        self._checked_s = float("-inf")
        return revoked

    def list(self) -> tuple[KeyRecord, ...]:
        """Return all keys, including revoked ones, oldest first."""
        return self._table.all()

    def _reload(self) -> None:
        # The revision is read before the keys, so that the next check sees a change in between.
        revision = self._table.revision()
        if revision != self._revision:
            self._ring = KeyRing(self._table.all())
            self._revision = revision


def mint(spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int) -> NewKey:
    """Create a key from random bytes. Raises KeySpecError."""
    if spec.role not in get_args(Role):
        raise KeySpecError(f"role is {spec.role!r}; use inference, viewer or admin")
    if spec.privacy not in get_args(KeyPrivacy):
        raise KeySpecError(f"privacy is {spec.privacy!r}; use any or local-only")
    for field, text in (("name", spec.name), ("tier", spec.tier)):
        if len(text) > 100 or not (text.isprintable() or not text):
            raise KeySpecError(f"{field} must be printable text of at most 100 characters")
    if not spec.name:
        raise KeySpecError("a key needs a name, so that you can tell later whose it is")
    if len(key_id) != ID_BYTES or len(secret) != SECRET_BYTES:
        raise KeySpecError(f"a key needs {ID_BYTES} and {SECRET_BYTES} random bytes")
    public, private = key_id.hex(), secret.hex()
    record = KeyRecord(
        id=public,
        name=spec.name,
        role=spec.role,
        tier=spec.tier,
        privacy=spec.privacy,
        may_route=spec.may_route,
        created=now_ms,
        revoked=None,
        secret_sha256=hashlib.sha256(private.encode()).digest(),
    )
    return NewKey(f"{PREFIX}{public}-{private}", record)


def accepted(spec: KeySpec, key_id: str, secret_sha256: str, now_ms: int) -> KeyRecord:
    """Return the record of a key minted elsewhere, given its public id and the hash of its secret, both in hex.

    Raises KeySpecError.
    """
    try:
        public, digest = bytes.fromhex(key_id), bytes.fromhex(secret_sha256)
    except ValueError as error:
        raise KeySpecError("write a key as ID:SHA256, both in hexadecimal digits") from error
    if len(public) != ID_BYTES or len(digest) != hashlib.sha256().digest_size:
        raise KeySpecError(f"a key's id has {2 * ID_BYTES} hexadecimal digits, and the SHA-256 of its secret has 64")
    record = mint(spec, public, bytes(SECRET_BYTES), now_ms).record
    return replace(record, secret_sha256=digest)
