"""API keys: `sk-spill-<id>-<secret>`, a public id and a 256-bit secret of which only the SHA-256 is stored.

A fast hash is right here, because a secret of 256 random bits can't be guessed. Checking a key on the hot path is a
look-up in a snapshot; a token that comes for the first time is hashed and compared in constant time. The snapshot is
read again when the keys' revision in the database has changed, which `spillway keys` in another process causes too. The
revision is read at most once per `every_s` seconds, so a revoked key works at most that much longer.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast, get_args

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money.budget import EACH_USER, BudgetLine, Period
from spillway_router.core.money.credits import CreditLine
from spillway_router.core.money.tariff import NANO, TariffError, amount_of
from spillway_router.core.routing.model import KeyRules
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.records import (
    KeyPrivacy,
    KeyRecord,
    Role,
)
from spillway_router.ledger.tables.key_table import KeyChange, KeyTable

PREFIX = "sk-spill-"
SECRET_BYTES = 32
ID_BYTES = 6
RECHECK_S = 1.0
MOST_PER_LIMIT = 10**9
_MAX_TOKEN = 200
_NO_KEY = bytes(32)  # the digest to compare with if the id is unknown, so that both cases take the same time


class KeySpecError(LedgerError):
    """A key can't be created as requested; the message says what to change."""


@fast_frozen(frozen=True, slots=True)
class KeySpec:
    """What a new key may do. `name` and `tier` are free text of at most 100 characters; KeyRecord says what the others
    mean."""

    name: str
    role: Role = "inference"
    tier: str = ""
    privacy: KeyPrivacy = "any"
    may_route: bool = False
    models: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    expires: int | None = None
    per_minute: int = 0
    budget_nano: int | None = None
    budget_period: str = ""
    tokens_per_minute: int = 0
    concurrent: int = 0
    user_budget: str = ""
    user_credits: str = ""
    user_better: str = ""


@fast_frozen(frozen=True, slots=True)
class NewKey:
    """A new key at the only time at which its token is known: show `token` once, and store `record`."""

    token: str
    record: KeyRecord


class KeyRing:
    """A snapshot of all valid keys, which never change; `verify` is on the hot path.

    A token that was right once is known by itself, which saves hashing it at each request. Only right ones are, so
    there are at most as many as keys, and they go with the snapshot.
    """

    __slots__ = ("_by_id", "_known", "_rules")

    def __init__(self, records: Iterable[KeyRecord]) -> None:
        self._by_id: Mapping[str, KeyRecord] = {r.id: r for r in records if r.revoked is None}
        rules = {key_id: rules_of(record) for key_id, record in self._by_id.items()}
        self._rules: Mapping[str, KeyRules] = {key_id: each for key_id, each in rules.items() if each is not None}
        self._known: dict[str, KeyRecord] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def rules(self, key_id: str) -> KeyRules | None:
        """Return what a key may use; None if it may use everything."""
        return self._rules.get(key_id)

    def valid(self, key_id: str, wall: Callable[[], float] = time.time) -> KeyRecord | None:
        """Return the key of an id, None if it is unknown, expired or revoked. `wall` returns epoch seconds."""
        record = self._by_id.get(key_id)
        if record is None or (record.expires is not None and wall() * 1000 >= record.expires):
            return None
        return record

    def names(self) -> dict[str, str]:
        """Return the names of all keys by their ids."""
        return {key_id: record.name for key_id, record in self._by_id.items()}

    def verify(self, token: str, wall: Callable[[], float] = time.time) -> KeyRecord | None:
        """Return the key of this token, or None if the token is malformed, unknown, expired, revoked or wrong. Never
        raises. `wall` returns epoch seconds."""
        record = self._known.get(token)
        if record is not None:
            return None if record.expires is not None and wall() * 1000 >= record.expires else record
        if len(token) > _MAX_TOKEN or not token.startswith(PREFIX):
            return None
        key_id, _, secret = token[len(PREFIX) :].partition("-")
        record = self._by_id.get(key_id)
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        matches = hmac.compare_digest(digest, record.secret_sha256 if record else _NO_KEY)
        if record is None:
            return None
        if not matches:
            old, until = record.old_sha256, record.old_until
            if old is None or until is None or wall() * 1000 >= until or not hmac.compare_digest(digest, old):
                return None
        else:
            self._known[token] = record
        return None if record.expires is not None and wall() * 1000 >= record.expires else record


class KeyStore:
    """The keys of one database, with a snapshot that follows it. `verify` and `ring` belong to one thread."""

    def __init__(self, table: KeyTable, every_s: float = RECHECK_S, wall: Callable[[], float] = time.time) -> None:
        self._table = table
        self._wall = wall
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
        return self.ring(monotonic_s).verify(token, self._wall)

    def valid(self, key_id: str, monotonic_s: float) -> KeyRecord | None:
        """Return the key of an id if it is valid now, else None."""
        return self.ring(monotonic_s).valid(key_id, self._wall)

    def names(self) -> dict[str, str]:
        """Return the names of the keys by their ids, as of the last look."""
        return self._ring.names()

    def rules(self, key_id: str) -> KeyRules | None:
        """Return what a key that was just verified may use; None if it may use everything."""
        return self._ring.rules(key_id)

    def create(self, spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int, by: str = "") -> NewKey:
        """Store a new key durably, made from 6 (`key_id`) and 32 (`secret`) bytes of `secrets.token_bytes`.

        `by` says who does it; if it is empty, the ledger's `actor` does. Raises KeySpecError for an invalid name, role,
        tier or privacy, EntryConflictError if the id is taken.
        """
        new = mint(spec, key_id, secret, now_ms)
        self._table.add(new.record, by)
        self._checked_s = float("-inf")
        return new

    def set(self, key_id: str, spec: KeySpec, now_ms: int, *, by: str = "", force: bool = False) -> bool:
        """Give a key other rules durably: everything of `spec` but its name. Return False if no valid key has this id.

        Raises KeySpecError, and LastAdminError if the last administrator would become something else or expire; with
        `force` that is permitted.
        """
        _check(spec)
        before = self._valid(key_id)
        if before is None:
            return False
        fields = {name: value for name, value in _settings(spec).items() if getattr(before, name) != value}
        stays_admin = spec.role == "admin" and fields.get("expires") is None
        admin_left_ms = None if force or stays_admin else now_ms
        changed = not fields or self._table.change(
            KeyChange("key.set", key_id, fields, by=by, admin_left_ms=admin_left_ms)
        )
        self._checked_s = float("-inf")
        return changed

    def rotate(self, key_id: str, secret: bytes, until_ms: int, by: str = "") -> str | None:
        """Give a key another secret, made from 32 random bytes, and accept the one before until `until_ms`.

        Return the new token, or None if no valid key has this id.
        """
        before = self._valid(key_id)
        if before is None:
            return None
        digest = hashlib.sha256(secret.hex().encode()).digest()
        fields = {"secret_sha256": digest, "old_sha256": before.secret_sha256, "old_until": until_ms}
        changed = self._table.change(KeyChange("key.rotate", key_id, fields, by=by))
        self._checked_s = float("-inf")
        return f"{PREFIX}{key_id}-{secret.hex()}" if changed else None

    def revoke(self, key_id: str, now_ms: int, *, by: str = "", force: bool = False) -> bool:
        """Revoke a key durably; return False if no valid key has this id.

        Raises LastAdminError for the last administrator; with `force` it is revoked too.
        """
        admin_left_ms = None if force else now_ms
        change = KeyChange("key.revoke", key_id, {"revoked": now_ms}, by=by, admin_left_ms=admin_left_ms)
        revoked = self._table.change(change)
        self._checked_s = float("-inf")
        return revoked

    def list(self) -> tuple[KeyRecord, ...]:
        """Return all keys, including revoked ones, oldest first."""
        return self._table.all()

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a key, revoked or not; None if none has this id."""
        return next((record for record in self._table.all() if record.id == key_id), None)

    def _valid(self, key_id: str) -> KeyRecord | None:
        record = self.get(key_id)
        return None if record is None or record.revoked is not None else record

    def _reload(self) -> None:
        # The revision is read before the keys, so that the next check sees a change in between.
        revision = self._table.revision()
        if revision != self._revision:
            self._ring = KeyRing(self._table.all())
            self._revision = revision


def mint(spec: KeySpec, key_id: bytes, secret: bytes, now_ms: int) -> NewKey:
    """Create a key from random bytes. Raises KeySpecError."""
    _check(spec)
    if len(key_id) != ID_BYTES or len(secret) != SECRET_BYTES:
        raise KeySpecError(f"a key needs {ID_BYTES} and {SECRET_BYTES} random bytes")
    public, private = key_id.hex(), secret.hex()
    record = KeyRecord(
        id=public,
        name=spec.name,
        created=now_ms,
        revoked=None,
        secret_sha256=hashlib.sha256(private.encode()).digest(),
        **_settings(spec),
    )
    return NewKey(f"{PREFIX}{public}-{private}", record)


def rules_of(record: KeyRecord) -> KeyRules | None:
    """Return what a key may use; None if it may use everything, as often as it likes."""
    budget = None
    if record.budget_nano is not None and record.budget_period:
        budget = BudgetLine(f"key:{record.id}", record.budget_period, record.budget_nano)
    rules = KeyRules(
        models=names_in(record.models),
        backends=names_in(record.backends),
        per_minute=record.per_minute,
        budget=budget,
        tokens_per_minute=record.tokens_per_minute,
        concurrent=record.concurrent,
        user_budget=_user_budget(record.user_budget),
        credits=_user_credits(record.user_credits, record.user_better),
    )
    return None if rules == KeyRules() else rules


def spec_of(record: KeyRecord) -> KeySpec:
    """Return the specification that would make a key like this."""
    return KeySpec(
        name=record.name,
        role=record.role,
        tier=record.tier,
        privacy=record.privacy,
        may_route=record.may_route,
        models=_listed(record.models),
        backends=_listed(record.backends),
        expires=record.expires,
        per_minute=record.per_minute,
        budget_nano=record.budget_nano,
        budget_period=record.budget_period,
        tokens_per_minute=record.tokens_per_minute,
        concurrent=record.concurrent,
        user_budget=record.user_budget,
        user_credits=record.user_credits,
        user_better=record.user_better,
    )


def names_in(text: str) -> frozenset[str]:
    """Return the names in a list as KeyRecord has it."""
    return frozenset(_listed(text))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _settings(spec: KeySpec) -> dict[str, Any]:
    """Return the fields of a KeyRecord that can be set again."""
    return {
        "role": spec.role,
        "tier": spec.tier,
        "privacy": spec.privacy,
        "may_route": spec.may_route,
        "models": ",".join(spec.models),
        "backends": ",".join(spec.backends),
        "expires": spec.expires,
        "per_minute": spec.per_minute,
        "budget_nano": spec.budget_nano,
        "budget_period": spec.budget_period,
        "tokens_per_minute": spec.tokens_per_minute,
        "concurrent": spec.concurrent,
        "user_budget": spec.user_budget,
        "user_credits": spec.user_credits,
        "user_better": spec.user_better,
    }


def _user_budget(text: str) -> BudgetLine | None:
    """Return the cap of each user of a key. Raises KeySpecError."""
    if not text:
        return None
    amount, _, period = text.partition("/")
    try:
        if (usd_each := amount_of(amount)) > MOST_PER_LIMIT:
            raise ValueError(amount)
        return BudgetLine(EACH_USER, _period(period), int(usd_each * NANO))
    except (TariffError, ValueError):
        raise KeySpecError(f"user_budget is {text!r}; write USD per period, such as 0.50/day") from None


def _user_credits(requests: str, better: str) -> tuple[CreditLine, ...]:
    """Return how many requests and better answers each user of a key may have. Raises KeySpecError."""
    lines = []
    for counted, term, text in (("requests", "user_credits", requests), ("better", "user_better", better)):
        if text:
            number, _, period = text.partition("/")
            try:
                lines.append(CreditLine(EACH_USER, _period(period), int(number), counted))  # type: ignore[arg-type]
            except ValueError:
                raise KeySpecError(f"{term} is {text!r}; write a number per period, such as 1000/month") from None
    return tuple(lines)


def _period(text: str) -> Period:
    if text not in get_args(Period):
        raise ValueError(text)
    return cast("Period", text)


def _check(spec: KeySpec) -> None:
    """Raise KeySpecError if a key can't be like this."""
    if spec.role not in get_args(Role):
        raise KeySpecError(f"role is {spec.role!r}; use inference, viewer or admin")
    if spec.privacy not in get_args(KeyPrivacy):
        raise KeySpecError(f"privacy is {spec.privacy!r}; use any or local-only")
    for field, text in (("name", spec.name), ("tier", spec.tier)):
        if len(text) > 100 or not (text.isprintable() or not text):
            raise KeySpecError(f"{field} must be printable text of at most 100 characters")
    if not spec.name:
        raise KeySpecError("a key needs a name, so that you can tell later whose it is")
    for kind, names in (("model", spec.models), ("backend", spec.backends)):
        if any(not name or not name.isprintable() or "," in name or len(name) > 256 for name in names):
            raise KeySpecError(f"the name of a {kind} must be printable text without a comma")
    limits = {"requests per minute": spec.per_minute, "tokens per minute": spec.tokens_per_minute}
    for kind, most in {**limits, "requests in progress": spec.concurrent}.items():
        if not 0 <= most <= MOST_PER_LIMIT:
            raise KeySpecError(f"the number of {kind} must be 0 (any number) to {MOST_PER_LIMIT}")
    _user_budget(spec.user_budget)
    _user_credits(spec.user_credits, spec.user_better)
    if (spec.budget_nano is None) != (not spec.budget_period):
        raise KeySpecError("a budget needs an amount and a period")
    if spec.budget_nano is not None and (spec.budget_nano < 0 or spec.budget_period not in get_args(Period)):
        raise KeySpecError("a budget is 0 USD or more per hour, day or month")


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
