"""What the hot path works with: handed in by runtime.py, nothing global."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import LineKey
from spillway_router.core.routing.model import BackendSignals, RequestFacts, RequestRecord, Signals
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.pacer import Pacer
from spillway_router.ledger.tables.feedback import FeedbackTable
from spillway_router.proxy.audits.audits import Audits
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.byok_pools import OwnKeys
from spillway_router.proxy.memory.memory import Memory
from spillway_router.proxy.memory.records import Records
from spillway_router.signals.board import Board

Hook = Callable[[RequestRecord], None]


@dataclass(frozen=True, slots=True)
class Services:
    """The hot path's surroundings. `clock` is monotonic seconds, `wall` epoch seconds."""

    live: Callable[[], ActiveConfig]
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

    def signals(self, live: ActiveConfig, facts: RequestFacts) -> Signals:
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
        return Signals(signals.monotonic_s, with_budget)

    def priced(self, live: ActiveConfig, facts: RequestFacts, signals: Signals) -> Signals:
        """The snapshot with what escalating must gain per USD now, where a paced budget covers it."""
        if not self.pacer.active:
            return signals
        used = self.accounts.used(facts)
        priced = {
            name: replace(signals.backends[name], price_of_gain=self.pacer.price(name, facts.caller, used))
            for name in live.policy.confidence.escalate_to
            if name in signals.backends
        }
        return Signals(signals.monotonic_s, {**signals.backends, **priced})
