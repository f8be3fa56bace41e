"""The values that go into a ledger and come out of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import Period
from spillway_router.ledger.entries import Entry, Row
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError

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


Rows = list[tuple[Any, ...]]


Execute = Callable[[str, Sequence[Any], bool], Rows]
"""Statement with ? for values, the values, and whether it writes (then it is durable when it returns)."""
