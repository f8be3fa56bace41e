"""API keys: `sk-spill-<id>-<secret>`, a public id and a 256-bit secret of which only the SHA-256 is stored.

A fast hash is right here: the secret is 256 random bits, so there is nothing to guess. Checking a key on
the hot path is one dictionary look-up and one constant-time compare on a snapshot; the snapshot is read
again when the keys' revision in the database has moved, which `spillway keys` in another process does too.
Looking is limited to once per `every_s` seconds: a revoked key works at most that much longer.
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
_NO_KEY = bytes(32)  # compared against when the id is unknown, so that both cases take the same path


class KeySpecError(LedgerError):
    """A key can't be made as asked; the message says what to change."""


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
    """A key at the only moment its token is known: show `token` once, store `record`."""

    token: str
    record: KeyRecord


class KeyRing:
    """Immutable snapshot of all keys; `verify` is the hot path."""

    __slots__ = ("_by_id",)

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._by_id: Mapping[str, KeyRecord] = {r.id: r for r in records if r.revoked is None}

    def __len__(self) -> int:
        return len(self._by_id)

    def verify(self, token: str) -> KeyRecord | None:
        """The key of this token, or None if it is malformed, unknown, revoked or wrong. Never raises."""
        if len(token) > _MAX_TOKEN or not token.startswith(PREFIX):
            return None
        key_id, _, secret = token[len(PREFIX) :].partition("-")
        record = self._by_id.get(key_id)
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        matches = hmac.compare_digest(digest, record.secret_sha256 if record else _NO_KEY)
        return record if matches else None


class KeyStore:
    """Keys of one database with a snapshot that follows it. `verify` and `ring` belong to one thread."""

    def __init__(self, table: KeyTable, every_s: float = RECHECK_S) -> None:
        self._table = table
        self._every_s = every_s
        self._revision = -1
        self._checked_at = float("-inf")
        self._ring = KeyRing(())

    def ring(self, now: float) -> KeyRing:
        """The snapshot at `now` (monotonic seconds). Raises LedgerUnavailableError if the first read fails.

        Later failures keep the snapshot: an unreadable database must not lock everyone out.
        """
        if now - self._checked_at >= self._every_s:
            self._checked_at = now
            try:
                self._reload()
            except LedgerError:
                if self._revision < 0:
                    raise
        return self._ring

    def verify(self, token: str, now: float) -> KeyRecord | None:
        """The valid key of this token, or None."""
        return self.ring(now).verify(token)

    def create(self, spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int) -> NewKey:
        """Store a new key durably. `key_id` 6 and `secret` 32 random bytes, from `secrets.token_bytes`.

        Raises KeySpecError for a bad name, role, tier or privacy, EntryConflictError if the id is taken.
        """
        new = mint(spec, key_id, secret, now_ms)
        self._table.add(new.record)
        self._checked_at = float("-inf")
        return new

    def revoke(self, key_id: str, now_ms: int) -> bool:
        """Revoke durably; False if there is no such valid key."""
        revoked = self._table.revoke(key_id, now_ms)
        self._checked_at = float("-inf")
        return revoked

    def list(self) -> tuple[KeyRecord, ...]:
        """All keys with the revoked ones, oldest first."""
        return self._table.all()

    def _reload(self) -> None:
        # The revision is read before the keys: a change in between is seen at the next look.
        revision = self._table.revision()
        if revision != self._revision:
            self._ring = KeyRing(self._table.all())
            self._revision = revision


def mint(spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int) -> NewKey:
    """Make a key from random bytes. Raises KeySpecError."""
    if spec.role not in get_args(Role):
        raise KeySpecError(f"role is {spec.role!r}; use inference, viewer or admin")
    if spec.privacy not in get_args(KeyPrivacy):
        raise KeySpecError(f"privacy is {spec.privacy!r}; use any or local-only")
    for field, text in (("name", spec.name), ("tier", spec.tier)):
        if len(text) > 100 or not (text.isprintable() or not text):
            raise KeySpecError(f"{field} must be printable text of at most 100 characters")
    if not spec.name:
        raise KeySpecError("a key needs a name, so that you know later whose it is")
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
    """The record of a key that was minted elsewhere, by its public id and the hash of its secret, both in hex. Raises
    KeySpecError."""
    try:
        public, digest = bytes.fromhex(key_id), bytes.fromhex(secret_sha256)
    except ValueError as error:
        raise KeySpecError("write a key as ID:SHA256, both in hexadecimal digits") from error
    if len(public) != ID_BYTES or len(digest) != hashlib.sha256().digest_size:
        raise KeySpecError(f"a key's id has {2 * ID_BYTES} hexadecimal digits, the SHA-256 of its secret 64")
    made = mint(spec, public, bytes(SECRET_BYTES), now_ms).record
    return replace(made, secret_sha256=digest)
