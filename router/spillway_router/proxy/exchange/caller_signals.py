"""The board's signals as they are for one caller: with what the caller's budgets have left, and what they demand."""

from __future__ import annotations

from dataclasses import replace

from spillway_router.core.routing.model import Backend, BackendSignals, RequestFacts, Signals
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.taking_back import is_added, refused_bounds
from spillway_router.proxy.memory.refused_additions import ADDED_WORDS


def caller_signals(services: Services, config: ActiveConfig, facts: RequestFacts) -> Signals:
    """The board's snapshot, with the caller's headroom at each backend where budgets are configured."""
    signals = services.board.current(services.clock())
    accounts, queues = services.accounts, services.local_queues
    if queues.count:
        waiting = {name: queues.with_waiting(name, one, facts.caller) for name, one in signals.backends.items()}
        signals = Signals(signals.monotonic_s, waiting)
    if not services.memory.refused_additions.is_empty:
        signals = _with_refused_bounds(services, config, facts, signals)
    if not accounts.limits(facts):
        return signals
    backends = config.policy.backends
    paid = [name for name in signals.backends if name in backends and _has_price(backends[name])]
    used = accounts.shares_used(facts) if any(backends[name].degrade_steps for name in paid) else None
    with_budget = {name: one for name, one in signals.backends.items() if name in backends}
    for name, headroom_nano in accounts.headrooms(facts, paid).items():
        with_budget[name] = with_budget[name].with_budget(headroom_nano, used)
    return Signals(signals.monotonic_s, with_budget)


def _has_price(backend: Backend) -> bool:
    return backend.tariff is not None or backend.any_model


def _with_refused_bounds(services: Services, config: ActiveConfig, facts: RequestFacts, signals: Signals) -> Signals:
    """The snapshot with what bounds the cost of such a request and is known to be refused at each paid backend."""
    refusing: dict[str, BackendSignals] = {}
    for name, backend in config.policy.backends.items():
        if not _has_price(backend) or name not in signals.backends:
            continue
        refused = [addition for addition in refused_bounds(services, facts, name) if is_added(addition, facts)]
        if refused:
            words = tuple([ADDED_WORDS[addition] for addition in sorted(refused)])
            refusing[name] = replace(signals.backends[name], refused_bounds=words)
    return Signals(signals.monotonic_s, {**signals.backends, **refusing}) if refusing else signals


def with_gain_prices(services: Services, config: ActiveConfig, facts: RequestFacts, signals: Signals) -> Signals:
    """The snapshot with the gain per USD that an escalation must bring now, where a paced budget covers it."""
    pacer = services.pacer
    if not pacer.active:
        return signals
    used = services.accounts.shares_used(facts)
    priced = {
        tier.name: replace(signals.backends[tier.name], price_of_gain=pacer.price(tier.name, facts.caller, used))
        for tier in config.policy.named(config.policy.confidence.escalate_to)
        if tier.name in signals.backends
    }
    return Signals(signals.monotonic_s, {**signals.backends, **priced})
