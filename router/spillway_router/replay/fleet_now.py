"""How many GPUs a configuration and a ledger ask for, as `spillway fleet` and the Fleet page say it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from spillway_router.config.costs import work_coefficients
from spillway_router.config.fleet_part import FleetPart
from spillway_router.config.load import Loaded
from spillway_router.core.fleet.scaler import FleetTerms, ScalingDecision
from spillway_router.core.replay.replay import CloudModel
from spillway_router.ledger.interface import Ledger
from spillway_router.replay.compare import ledger_requests
from spillway_router.replay.fleet import DemandHistory, OverflowPrice, decide_now, demand_history
from spillway_router.replay.policies import policy_of


class FleetError(ValueError):
    """The number of GPUs can't be decided; the message says what the configuration lacks."""


@dataclass(frozen=True, slots=True)
class FleetSetup:
    """The terms of the scaler, and where overflow goes."""

    terms: FleetTerms
    overflow: OverflowPrice


def fleet_of(loaded: Loaded) -> FleetPart:
    """Return the settings of the fleet. Raises FleetError without any."""
    fleet = loaded.settings.fleet
    if fleet is None:
        raise FleetError("There is no `fleet` in the configuration. Add, for example, fleet: {max: 4}.")
    return fleet


def fleet_setup(loaded: Loaded, today: date) -> FleetSetup:
    """Return the terms at the prices of a UTC day. Raises FleetError, or ConfigError with every problem."""
    fleet, gpu = fleet_of(loaded), loaded.settings.gpu
    usd = fleet.price_per_hour or gpu.hourly
    if usd <= 0:
        raise FleetError("The price of a GPU is unknown. Set fleet.price_per_hour, or gpu.price_per_hour.")
    policy = policy_of("now", loaded, today, CloudModel()).terms.policy
    priced = [
        OverflowPrice(name, tariff)
        for name in policy.aliases["auto"]
        if not policy.backends[name].local and (tariff := policy.backends[name].tariff) is not None
    ]
    if not priced:
        raise FleetError("Overflow has no price, because the chain of `auto` has no cloud. Add one to compare with.")
    return FleetSetup(fleet.terms(usd), priced[0])


def history_of(loaded: Loaded, ledger: Ledger, span_s: tuple[int, int], setup: FleetSetup) -> DemandHistory:
    """Return the demand of the requests in [start, end), epoch seconds."""
    recorded = ledger_requests(ledger, span_s[0] * 1000, span_s[1] * 1000, frozenset())
    requests = (one.past for one in recorded)
    return demand_history(requests, setup.overflow, work_coefficients(loaded.settings), span_s, setup.terms.most)


@dataclass(frozen=True, slots=True)
class FleetNow:
    """A decision, how many GPUs are rented, how many requests it went by, and where overflow goes."""

    decision: ScalingDecision
    rented: int
    requests: int
    overflow: str


def fleet_now(
    loaded: Loaded, ledger: Ledger, span_s: tuple[int, int], setup: FleetSetup, rented: int | None = None
) -> FleetNow:
    """Return the decision at the end of a span; `rented` is gpu.count by default."""
    history = history_of(loaded, ledger, span_s, setup)
    present = loaded.settings.gpu.count if rented is None else rented
    decision = decide_now(history, setup.terms, present)
    return FleetNow(decision=decision, rented=present, requests=history.requests, overflow=setup.overflow.backend)


def decision_values(decision: ScalingDecision) -> dict[str, Any]:
    """Return a decision as JSON values."""
    reasons = [
        {
            "gpu": one.layer,
            "reason": one.token,
            "balance_usd": round(one.balance_nano / 1e9, 6),
            "changes_at_usd": round(one.changes_at_nano / 1e9, 6),
            "sentence": one.sentence(),
        }
        for one in decision.reasons
    ]
    return {"gpus": decision.target, "reasons": reasons}
