"""The values that callers write to a ledger and read from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from spillway_router.core.money.budget import Period
from spillway_router.ledger.entries import ANSWERED, CACHE, REVIEW, Entry, Row
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError

Role = Literal["inference", "viewer", "admin"]
KeyPrivacy = Literal["any", "local-only"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key as stored, without its secret; `secret_sha256` is the 32-byte digest of the secret.

    `privacy` is the default for requests with this key, and `may_route` permits requests to choose between the GPU and
    the clouds. `models` and `backends` are the names that it may use, separated by commas; all if empty. `per_minute`
    is the most requests per minute, 0 for any number, and `budget_nano` the most nano-dollars in each `budget_period`,
    None for no cap of its own. `tokens_per_minute` and `concurrent` are the most tokens per minute and the most
    requests in progress at one router, 0 for any number. `user_budget` (in USD), `user_credits` and `user_better` are
    what each end user may spend, request and have answered better, such as 1000/month; empty for any number.
    `old_sha256` is the digest of the secret before the last rotation, which is accepted before `old_until`. Times are
    in epoch milliseconds.
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
    models: str = ""
    backends: str = ""
    expires: int | None = None
    per_minute: int = 0
    budget_nano: int | None = None
    budget_period: Period | Literal[""] = ""
    old_sha256: bytes | None = None
    old_until: int | None = None
    tokens_per_minute: int = 0
    concurrent: int = 0
    user_budget: str = ""
    user_credits: str = ""
    user_better: str = ""


@dataclass(frozen=True, slots=True)
class RentalRecord:
    """A period in which GPUs were rented. Times are epoch milliseconds; `stopped_ms` is None while it runs.

    `gpu` is the model (a100-80, t4, ...) or empty, `price_nano_per_hour` is in nano-dollars per hour of one GPU, and
    `source` names who declared the rental (router, cli, runpod, vast, aws). With `price_nano_per_month`, one GPU costs
    that much per calendar month, and the price per hour only serves comparisons. `whole_nano_per_hour` is the price of
    all GPUs where a provider told one that is no multiple of their number. `machine` is the place of the GPUs as the
    source names it (the id of a pod, a host), empty if unknown; `seen_ms` is when it was last seen running.
    """

    id: str
    gpu: str
    count: int
    price_nano_per_hour: int
    kind: Literal["reserved", "interruptible"]
    started_ms: int
    stopped_ms: int | None
    source: str
    price_nano_per_month: int | None = None
    whole_nano_per_hour: int | None = None
    machine: str = ""
    seen_ms: int | None = None

    @property
    def all_nano_per_hour(self) -> int:
        """Nano-dollars per hour of all GPUs together."""
        whole = self.whole_nano_per_hour
        return self.count * self.price_nano_per_hour if whole is None else whole


@dataclass(frozen=True, slots=True)
class OtherCost:
    """A fixed cost that is no GPU, such as a database: nano-dollars per calendar month, from a start (epoch ms) to a
    stop, which is None while it runs."""

    id: str
    name: str
    price_nano_per_month: int
    started_ms: int
    stopped_ms: int | None


class Group(NamedTuple):
    """What attempts have in common for a report: where they went, why, how they ended, and what they were for."""

    local: bool
    decision: str
    backend: str
    provider: str
    model: str
    status: str
    document: bool
    tier: str
    task: str

    @property
    def answers(self) -> bool:
        """Whether the attempts answered requests; a document that waits for a person is not answered."""
        return self.status in ANSWERED and self.backend != REVIEW

    @property
    def cached(self) -> bool:
        """Whether the requests got stored answers, so that no backend was asked."""
        return self.backend == CACHE


@dataclass(frozen=True, slots=True)
class Total:
    """Sums over the charged and adjusted rows of one group within a time range.

    `day` is the UTC date in ISO form, empty where the sums cover several days; `key_id` is empty where they cover all
    API keys. An attempt counts on the day of its hold, without a hold on the day of its own `ts`, exactly as budgets
    count it. `attempts` counts charged rows, `answers` those that answered a request (at most one per request), and
    `requests` those that were written first of their request. `cost_nano` is in nano-dollars, `gpu_us` in microseconds
    of one GPU. `kv_token_steps_x2` is the sum of `2*c*o + o*o` (with c prompt and o completion tokens of a charged
    row): twice the number of context tokens that decoding reads. It is an integer and serves the work share of
    core/money/attribution.py. `unsure` attempts are not known for sure: their cost is estimated at
    `estimated_nano`, and at most `at_most_nano` (entries.py). `saved_nano` is what the stored answers had cost that
    requests got again.
    """

    day: str
    key_id: str
    group: Group
    attempts: int
    requests: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    kv_token_steps_x2: int
    gpu_us: int
    cost_nano: int
    unsure: int
    estimated_nano: int
    at_most_nano: int
    saved_nano: int


class KeyWork(NamedTuple):
    """The work of one local group on one day, by API key: pairs of key id and microseconds of one GPU, ordered by key
    id."""

    day: str
    group: Group
    shares_us: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Rented:
    """The fixed cost of a time range: nano-dollars billed, and microseconds of GPU time (length x number of GPUs)."""

    billed_nano: int
    gpu_us: int


@dataclass(frozen=True, slots=True)
class Cap:
    """One budget line in one period, as the database checks it.

    `scope` is all, backend:NAME, key:ID, tier:NAME or user:ID; `start_ms` is the first millisecond of the period
    (epoch, UTC); `limit_nano` is in nano-dollars.
    """

    scope: str
    period: Period
    start_ms: int
    limit_nano: int


class Write(NamedTuple):
    """Entries that are stored together or not at all.

    With caps, they are stored only if on each cap spent + reserved + what the entries reserve stays within the limit.
    """

    entries: tuple[Entry, ...]
    caps: tuple[Cap, ...] = ()


@dataclass(frozen=True, slots=True)
class CapReached:
    """The write was not stored because of this cap, of which `taken_nano` was spent or reserved. This is no error."""

    cap: Cap
    taken_nano: int


WriteResult = CapReached | EntryConflictError | EntryRejectedError | None
"""None means that the write is durable on disk; otherwise nothing of it is stored."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Cloud spend of one scope in one period, in nano-dollars: charged (including adjustments), and still reserved."""

    spent_nano: int
    reserved_nano: int


BalanceKey = tuple[str, Period, int]
"""Scope, period, and the period's first millisecond (epoch)."""


class Linked(NamedTuple):
    """A stored row with its position in the order of writing and its link in the hash chain (entries.link_of).

    `link` is empty for rows that are older than the chain.
    """

    seq: int
    row: Row
    link: bytes


Canonical = tuple[int, str | bytes, bytes, bool, bool]
"""A stored row as `verify` reads it: its `seq`, its canonical JSON (entries.link_of), its link, and whether it is a
charge that names a price and whether it is an adjustment."""

Rows = list[tuple[Any, ...]]
"""The rows that a database returns."""

Execute = Callable[[str, Sequence[Any], bool], Rows]
"""Runs a statement: its SQL with ? for values, the values, and whether it writes (then it is durable on return)."""
