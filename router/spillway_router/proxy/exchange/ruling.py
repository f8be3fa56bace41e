"""Applies the rules of the policy to one request: from then on it runs under the policy as they make it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spillway_router.core.routing.model import RequestFacts
from spillway_router.core.routing.rules import Moment, Rules
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.conversation import conversation


def with_traits(config: ActiveConfig, facts: RequestFacts, body: Mapping[str, Any]) -> RequestFacts:
    """Return the facts with what the body asks for, where any rule looks at it."""
    if config.traits is None:
        return facts
    return replace(facts, traits=config.traits.traits(conversation(facts, body)))


def under_rules(
    services: Services, config: ActiveConfig, facts: RequestFacts, confidence: float | None = None
) -> ActiveConfig:
    """Return the configuration under which a request runs: the policy is as its rules make it at this moment.

    `confidence` is that of an answer for which a better one is looked for.
    """
    if not config.rules.rules:
        return config
    moment = _moment(services, config.rules, facts)
    if confidence is not None:
        moment = replace(moment, confidence=confidence)
    places = config.rules.matching(facts, moment)
    return services.ruled_configs.under(config, places) if places else config


def under_shadow(services: Services, config: ActiveConfig, facts: RequestFacts) -> ActiveConfig | None:
    """Return the configuration under which the shadow of a request runs; None if it is in none now."""
    places = config.rules.matching(facts, _moment(services, config.rules, facts))
    shadow = services.ruled_configs.under(config, places, in_shadow=True) if places else config
    arm = shadow.policy.ruling.arm
    return None if arm is None or not arm.shadow else shadow


def in_arm(config: ActiveConfig, facts: RequestFacts) -> RequestFacts:
    """Return the facts with the arm of the experiment in which the request is, under the configuration as its rules
    make it. The ledger keeps it."""
    arm = config.policy.ruling.arm
    return facts if arm is None else replace(facts, experiment=arm.mark(facts))


def _moment(services: Services, rules: Rules, facts: RequestFacts) -> Moment:
    """Return what the rules may know besides the request. What none of them looks at is left out."""
    used = services.accounts.shares_used(facts) if rules.read_budgets and services.accounts.limits(facts) else {}
    waiting = [0]
    if rules.read_queues:
        backends = services.board.current(services.clock()).backends.values()
        waiting = [one.backlog.waiting_first_token for one in backends if one.backlog is not None]
    busy: list[float] = []
    if rules.read_gpus:
        backends = services.board.current(services.clock()).backends.values()
        busy = [one.gpu_utilisation for one in backends if one.gpu_utilisation is not None]
    return Moment(
        wall_s=services.wall(),
        budget_left=1.0 - max(used.values(), default=0.0),
        waiting=min(waiting, default=0),
        gpu_utilisation=min(busy, default=None),
    )
