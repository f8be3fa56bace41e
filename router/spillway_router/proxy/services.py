"""What the hot path works with: handed in by runtime.py, nothing global."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING

from spillway_router.core.budget import LineKey
from spillway_router.core.calibration import Calibration
from spillway_router.core.frozen import dataclass
from spillway_router.core.model import Backend, BackendSignals, RequestFacts, RequestRecord, Signals
from spillway_router.core.policy import Policy
from spillway_router.core.self_check import SelfCheck
from spillway_router.core.validators import Rule
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.feedback import FeedbackTable
from spillway_router.ledger.pacer import Pacer
from spillway_router.providers.base import Provider
from spillway_router.providers.own_key import OwnKeys
from spillway_router.providers.transport import Pool
from spillway_router.proxy.auth import Auth
from spillway_router.proxy.facts import PrivacyRule
from spillway_router.proxy.memory import Memory
from spillway_router.signals.board import Board

if TYPE_CHECKING:
    from spillway_router.proxy.audits import Audits


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one request: bytes and seconds."""

    body_bytes: int = 32 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024
    body_s: float = 30.0
    first_event_s: float = 120.0
    """From sending to the first content, stream or not: then the next candidate is asked."""
    answer_s: float = 600.0
    """Longest wait for a whole non-stream answer."""
    stall_s: float = 30.0
    """Between two events of a stream."""
    in_flight: int = 4096
    """Requests in progress; above it 503 at once."""


@dataclass(frozen=True, slots=True)
class Channel:
    """How to reach a backend."""

    backend: Backend
    provider: Provider
    pool: Pool
    lines: bytes
    """Header lines that name it in answers."""
    credentials: bytes = field(default=b"", repr=False)
    """Header lines with a caller's own key, for this call alone."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How local answers are scored. `hold_tokens`: of a stream, before it is let go; None: as many as the promised time
    to first token leaves room for. `top_logprobs`: alternatives per token asked of the engine. `audit_share`: share of
    local answers that a stronger model answers again. `rules`: an answer whose values break one counts as not sure."""

    calibration: Calibration | None = None
    hold_tokens: int | None = None
    top_logprobs: int = 2
    audit_share: float = 0.0
    rules: tuple[Rule, ...] = ()
    self_check: SelfCheck | None = None
    """A second look at answers near the threshold."""
    barred: frozenset[str] = frozenset()
    """Backends that serve something else than what the calibration was made for."""

    @property
    def for_documents(self) -> Calibration | None:
        """A document's draft doesn't say which backend it is of: where one is barred, none is judged by it."""
        return None if self.barred else self.calibration


@dataclass(frozen=True, slots=True)
class Live:
    """Everything that a configuration reload replaces at once."""

    policy: Policy
    channels: Mapping[str, Channel]
    privacy: PrivacyRule
    auth: Auth
    limits: Limits
    created: int
    """Epoch seconds, for /v1/models."""
    opening: bytes
    """Header line of every answer: the policy's version."""
    scoring: Scoring = Scoring()


Hook = Callable[[RequestRecord], None]


class Records:
    """The last `bound` request records, oldest forgotten first; the ledger knows the older ones.

    Few on purpose: what is forgotten is used again for the next request, and should still be in the processor's cache
    by then. A thousand cost 5% of the router's time.
    """

    def __init__(self, bound: int = 256) -> None:
        self._bound = bound
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()

    def add(self, record: RequestRecord) -> None:
        """Keep a record."""
        self._records[record.facts.request_id] = record
        if len(self._records) > self._bound:
            self._records.popitem(last=False)

    def get(self, request_id: str) -> RequestRecord | None:
        """The record of a request, None if it is unknown or too old."""
        return self._records.get(request_id)

    def recent(self, count: int) -> list[RequestRecord]:
        """The newest `count` records, newest first."""
        found = list(self._records.values())[-count:]
        found.reverse()
        return found


@dataclass(frozen=True, slots=True)
class Services:
    """The hot path's surroundings. `clock` is monotonic seconds, `wall` epoch seconds."""

    live: Callable[[], Live]
    board: Board
    accounts: Accounts
    records: Records
    hooks: Sequence[Hook]
    clock: Callable[[], float]
    wall: Callable[[], float]
    new_id: Callable[[], str]
    loop: asyncio.AbstractEventLoop
    """The loop all of it runs on. Asking asyncio for it costs a system call each time (Python 3.11)."""
    pacer: Pacer
    own_keys: OwnKeys
    feedback: FeedbackTable
    memory: Memory
    audits: Audits

    def signals(self, live: Live, facts: RequestFacts) -> Signals:
        """The board's snapshot, with what this caller's budgets have left where budgets are configured."""
        signals = self.board.current(self.clock())
        if not self.accounts.has_budgets:
            return signals
        used: Mapping[LineKey, float] | None = None
        with_budget: dict[str, BackendSignals] = {}
        for name, known in signals.backends.items():
            backend = live.policy.backends.get(name)
            if backend is None:
                continue
            if backend.tariff is not None:
                if backend.rungs and used is None:
                    used = self.accounts.used(facts)
                known = replace(known, budget_left_nano=self.accounts.headroom(facts, backend), budget_used=used)
            with_budget[name] = known
        return Signals(signals.now, with_budget)

    def priced(self, live: Live, facts: RequestFacts, signals: Signals) -> Signals:
        """The snapshot with what escalating must gain per USD now, where a paced budget covers it."""
        if not self.pacer.active:
            return signals
        used = self.accounts.used(facts)
        priced = {
            name: replace(signals.backends[name], price_of_gain=self.pacer.price(name, facts.caller, used))
            for name in live.policy.confidence.escalate_to
            if name in signals.backends
        }
        return Signals(signals.now, {**signals.backends, **priced})
