"""What a ledger can do, and how it fails. Implementations: sqlite.py, postgres.py; one contract suite holds them all.

Methods are synchronous and safe to call from any thread. The proxy never calls `commit` itself: it hands
writes to writer.py, which commits many requests' rows together on its own thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import Period
from spillway_router.ledger.entries import Entry, Row

if TYPE_CHECKING:
    from spillway_router.ledger.tables.feedback import FeedbackTable
    from spillway_router.ledger.tables.labels import LabelTable
    from spillway_router.ledger.tables.reviews import ReviewTable


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
class Cap:
    """One budget line in one period, as the database checks it: `scope` all, backend:NAME, key:ID or tier:NAME;
    `start_ms` the first millisecond of the period (UTC); `limit_nano` nano-dollars."""

    scope: str
    period: Period
    start_ms: int
    limit_nano: int


@dataclass(frozen=True, slots=True)
class Write:
    """Entries that are stored together or not at all. With caps, only if on every one of them spent + reserved + what
    the entries reserve stays within the limit."""

    entries: tuple[Entry, ...]
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class CapReached:
    """A write was not stored because of this cap, of which `taken_nano` was spent or reserved before. Expected."""

    cap: Cap
    taken_nano: int


WriteResult = CapReached | EntryConflictError | EntryRejectedError | None
"""None: durable on disk. Else nothing of the write is stored."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Cloud spend of one scope in one period, in nano-dollars: charged (with adjustments) and still held."""

    spent_nano: int
    reserved_nano: int


BalanceKey = tuple[str, Period, int]
"""Scope, period, and the period's first millisecond."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A stored row with its place in the order of writing and its link in the hash chain (entries.link_of).

    `link` is empty in rows that are older than the chain.
    """

    seq: int
    row: Row
    link: bytes


@dataclass(frozen=True, slots=True)
class RentalRecord:
    """A period in which GPUs were rented; times are epoch milliseconds, `stopped_ms` None while it runs.

    `gpu` is the model (a100-80, t4, ...) or empty, `price_nano_per_hour` nano-dollars per hour of one GPU, `source` who
    said so (router, cli, runpod, vast, aws).
    """

    id: str
    gpu: str
    count: int
    price_nano_per_hour: int
    kind: Literal["reserved", "interruptible"]
    started_ms: int
    stopped_ms: int | None
    source: str


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the charged and adjusted rows of one group within a time range.

    The group is everything up to `task`; `day` is the UTC date of `ts` in ISO form. `attempts` counts charged rows,
    `requests` those of them that answered a request (at most one each), `cost_nano` is nano-dollars, `gpu_us`
    microseconds of one GPU, and `kv_token_steps_x2` is the sum of `2*c*o + o*o` (c prompt and o completion tokens of a
    charged row): twice the tokens of context that decoding reads, an integer, for the work share of
    core/money/attribution.py.
    """

    day: str
    local: bool
    decision: str
    backend: str
    provider: str
    model: str
    status: str
    document: bool
    key_id: str
    tier: str
    task: str
    attempts: int
    requests: int
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


class RentalTable(Protocol):
    """GPU rental periods in the ledger's database."""

    def add_rental(self, record: RentalRecord) -> None:
        """Store a new period durably. Raises EntryConflictError if the id is taken."""

    def rentals(self, start_ms: int, end_ms: int) -> tuple[RentalRecord, ...]:
        """Periods that overlap [start, end), oldest first; one that runs has no end."""

    def stop_rental(self, rental_id: str, at_ms: int) -> bool:
        """End a period durably; False if there is no such period that still runs."""


class Ledger(KeyTable, RentalTable, Protocol):
    """Append-only entries on disk; every balance is a projection of them."""

    @property
    def reviews(self) -> ReviewTable:
        """Documents that wait for a person."""

    @property
    def feedback(self) -> FeedbackTable:
        """What people thought of answers."""

    @property
    def labels(self) -> LabelTable:
        """What audits found of local answers."""

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Store the writes in one transaction, in order; one result each, durable where it is None.

        Caps are judged inside the transaction, so they hold for any number of processes. Writing the same entry again
        is harmless (a retry after a lost acknowledgement). Raises LedgerUnavailableError, and then nothing was stored.
        """

    def append(self, entries: Sequence[Entry]) -> None:
        """Store entries as one write without caps.

        Raises EntryRejectedError, EntryConflictError or LedgerUnavailableError, and then nothing was stored.
        """
        result = self.commit((Write(tuple(entries)),))[0]
        if isinstance(result, LedgerError):
            raise result

    def probe(self) -> None:
        """Write something small durably, to learn if writing works again. Raises LedgerUnavailableError."""

    def balance(self, scope: str, period: Period, start_ms: int) -> Balance:
        """Spend and open holds of a scope (`all`, `backend:NAME`, `key:ID`, `tier:NAME`) in one period.

        One look-up. A charge belongs to the period in which its attempt was reserved, else to that of its own `ts`.
        Raises BudgetError for a scope that can't be one.
        """

    def balances(self) -> Mapping[BalanceKey, Balance]:
        """All stored balances that are not zero: what `spillway ledger verify` compares with the entries."""

    def open_reservations(self, start_ms: int, end_ms: int) -> tuple[Entry, ...]:
        """Reserved entries of [start, end) that were neither charged nor released, oldest first."""

    def alive(self, router_id: str, now_ms: int) -> None:
        """Heartbeat of a router process."""

    def orphans(self, now_ms: int, silent_ms: int) -> tuple[Entry, ...]:
        """Open reservations of that age or more whose router has been silent for that long, oldest first."""

    def entries_of(self, request_id: str) -> tuple[Entry, ...]:
        """All entries of one request in the order they were written."""

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        """Entries with `ts` in [start, end) in the order they were written, read in bounded chunks."""

    def chain(self, after_seq: int = 0) -> Iterator[Linked]:
        """Rows after that one with their links, in the order they were written, read in bounded chunks."""

    def totals(self, start_ms: int, end_ms: int) -> tuple[Total, ...]:
        """Sums per group of the charged and adjusted rows with `ts` in [start, end), in the order of the group keys,
        local groups of a day first."""

    def requests(self, start_ms: int, end_ms: int) -> int:
        """Number of different requests with a charged row with `ts` in [start, end)."""

    def rented(self, start_ms: int, end_ms: int) -> Rented:
        """Sum of the gpu_hour rows with `ts` in [start, end)."""

    def close(self) -> None:
        """Close the connections; harmless when called twice."""
