"""What a ledger can do, and how it fails. Implementations: sqlite.py; one contract suite holds them all.

Methods are synchronous and safe to call from any thread. The proxy never calls `append` itself: it hands
entries to writer.py, which commits many requests' rows together on its own thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from spillway_router.ledger.entries import Entry


class LedgerError(Exception):
    """Base of everything the ledger raises."""


class LedgerUnavailableError(LedgerError):
    """The database can't be opened, read or written now; nothing of the call was stored."""


class LedgerConfigError(LedgerError):
    """The ledger's URL, folder or schema version can't be used; the message says what to change."""


class EntryRejectedError(LedgerError):
    """An entry breaks a rule of the ledger; nothing of the call was stored."""


class EntryConflictError(LedgerError):
    """An entry with the same (request_id, attempt_no, kind) but other content is already there; that one
    stands."""


class LedgerFullError(LedgerError):
    """The writer's queue is full: refuse paid calls; local answers go on without a durable row."""


class LedgerClosedError(LedgerError):
    """The writer was closed; it takes no more entries."""


Role = Literal["inference", "viewer", "admin"]
KeyPrivacy = Literal["any", "local-only"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key as stored: everything but the secret. `secret_sha256` is the 32-byte digest of the secret.

    `privacy` is the default for requests with this key, `may_route` permits the `x-spillway-route` hint,
    times are epoch milliseconds.
    """

    id: str
    name: str
    role: Role
    tier: str
    privacy: KeyPrivacy
    may_route: bool
    created: int
    revoked: int | None
    secret_sha256: bytes


@dataclass(frozen=True, slots=True)
class Balance:
    """Cloud spend of one scope in one period, in nano-dollars: charged (with adjustments) and still held."""

    spent_nano: int
    reserved_nano: int


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the charged and adjusted rows of one group within a time range.

    `attempts` counts charged rows, `cost_nano` is nano-dollars, `gpu_us` microseconds of one GPU, and
    `kv_token_steps_x2` is the sum of `2*c*o + o*o` (c prompt and o completion tokens of a row): twice the
    tokens of context that decoding reads, an integer, for the work share of core/attribution.py.
    """

    local: bool
    decision: str
    backend: str
    provider: str
    model: str
    status: str
    document: bool
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    kv_token_steps_x2: int
    gpu_us: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class Rented:
    """Fixed cost of a time range: nano-dollars billed and microseconds of GPU time in it (spans x GPUs)."""

    billed_nano: int
    gpu_us: int


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


class Ledger(KeyTable, Protocol):
    """Append-only entries on disk; every balance is a projection of them."""

    def append(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Store entries in one transaction; durable when this returns.

        Writing the same entry again is harmless (a retry after a lost acknowledgement). Returns the entries
        that were not stored because a different one with the same key is there. Raises EntryRejectedError
        or LedgerUnavailableError, and then nothing was stored.
        """

    def probe(self) -> None:
        """Write something small durably, to learn if writing works again. Raises LedgerUnavailableError."""

    def balance(self, scope: str, start_ms: int, end_ms: int) -> Balance:
        """Spend and open holds of a budget scope (`all`, `backend:NAME`, `key:ID`, `tier:NAME`) in [start,
        end).

        A charge belongs to the period in which its attempt was reserved, else to that of its own `ts`.
        """

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """Reserved entries of [start, end) that were neither charged nor released, oldest first."""

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """All entries of one request in the order they were written."""

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """Entries with `ts` in [start, end) in the order they were written, read in bounded chunks."""

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """Sums per group of the charged and adjusted rows with `ts` in [start, end)."""

    def requests(self, start_ms: int, end_ms: int) -> int:
        """Number of different requests with a charged row with `ts` in [start, end)."""

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """Sum of the gpu_hour rows with `ts` in [start, end)."""

    def close(self) -> None:
        """Close the connections; harmless when called twice."""
