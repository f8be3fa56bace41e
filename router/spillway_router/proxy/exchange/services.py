"""The services that the hot path works with. runtime/ hands them in; nothing here is global."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing.model import RequestRecord
from spillway_router.core.trace_context import TraceContext
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.credits import Credits
from spillway_router.ledger.pacer import Pacer
from spillway_router.ledger.provider_keys import ProviderKeys
from spillway_router.ledger.tables.feedback import FeedbackTable
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.audit_sample import AuditKind, AuditSample, LocalReading
from spillway_router.proxy.exchange.byok_pools import OwnKeys
from spillway_router.proxy.exchange.local_queue import LocalQueues
from spillway_router.proxy.exchange.ruled_configs import RuledConfigs
from spillway_router.proxy.exchange.shadow_sample import ShadowSample
from spillway_router.proxy.exchange.unread import DrainSink
from spillway_router.proxy.memory.memory import Memory
from spillway_router.proxy.memory.records import Records
from spillway_router.proxy.memory.stored_responses import StoredResponses
from spillway_router.proxy.request.body_memory import BodyMemory
from spillway_router.proxy.request.key_loads import KeyLoads
from spillway_router.proxy.request.verdicts import Verdicts
from spillway_router.signals.board import Board

Hook = Callable[[RequestRecord], None]
TraceReader = Callable[[str, Mapping[str, str]], TraceContext]
"""Takes the id of a request and its headers, names in lowercase."""


class AuditSink(Protocol):
    """What the exchange needs of audits: the thresholds that they moved, and a place to offer answers to.

    No method waits.
    """

    def threshold(self, kind: AuditKind, config: ActiveConfig, configured: float) -> float:
        """The least confidence with which a local answer is accepted: the configured one, as audits moved it."""

    def draws_chat(self, config: ActiveConfig) -> bool:
        """Draw whether a local answer that was accepted is audited."""

    def draws_document(self, config: ActiveConfig, reading: LocalReading) -> bool:
        """Draw whether the local reading of a document that has its answer is audited."""

    def is_probe(self, config: ActiveConfig, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is escalated, is to be compared with its better answer."""

    def observe_probe(self, config: ActiveConfig, draft: str, better: str) -> None:
        """Compare a probe with its better answer."""

    def offer(self, sample: AuditSample) -> None:
        """Audit an answer that the client got, unless too much waits already."""


class ShadowSink(Protocol):
    """What the exchange needs of shadows."""

    def offer(self, sample: ShadowSample) -> None:
        """Take a request that has its answer, unless too much waits already. Never waits."""


@fast_frozen(frozen=True, slots=True)
class Services:
    """`clock` is monotonic seconds, `wall` epoch seconds; `new_id` makes request ids."""

    config: Callable[[], ActiveConfig]
    """The configuration in force."""
    board: Board
    accounts: Accounts
    records: Records
    hooks: Sequence[Hook]
    """Each is called with the record of every request."""
    clock: Callable[[], float]
    wall: Callable[[], float]
    new_id: Callable[[], str]
    loop: asyncio.AbstractEventLoop
    """The loop that everything here runs on. Asking asyncio for it costs a system call each time (Python 3.11)."""
    pacer: Pacer
    own_keys: OwnKeys
    provider_keys: ProviderKeys
    """The provider keys that callers have stored."""
    feedback: FeedbackTable
    memory: Memory
    responses: StoredResponses
    """Which backend made each response that its provider stores."""
    audits: AuditSink
    shadows: ShadowSink
    bodies: BodyMemory
    """Bytes of the bodies of all requests in progress."""
    credits: Credits
    verdicts: Verdicts
    """Counts what is refused, and what had to stay private, for the audit log."""
    key_loads: KeyLoads
    """What keys have in progress, and the tokens that they have left."""
    drains: DrainSink
    local_queues: LocalQueues
    """The requests that wait for local engines."""
    ruled_configs: RuledConfigs
    """What the rules of the policy make of the configuration."""
    trace_of: TraceReader | None = None
    """Finds the trace of a request; None unless spans are exported."""
