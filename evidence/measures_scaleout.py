"""Scaling out by configuration: two real engines, two routers, one ledger, one engine drained under load."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from demo.processes import ChildError
from loadtests.scaleout import sites
from loadtests.scaleout.trial import Trial, TrialShape, run

from evidence.results import Measurement, not_measured
from spillway_router.testing.postgres_server import ServerMissingError, postgres_server

LOST = "scaleout.lost_requests"


def lost_requests(
    say: Callable[[str], None], starter: sites.Starter = sites.vllm, shape: TrialShape | None = None
) -> dict[str, Measurement]:
    """Count requests without a complete answer while one of two engines is asked to end under load.

    The result is a failure if a cap did not hold over both routers, if the other router can't look up a request, or if
    conversations did not stay with their prefix (or did not leave the engine that ended).
    """
    if starter is sites.vllm and not sites.ENGINE_PYTHON.exists():
        return {LOST: not_measured("the engine's environment .venv-vllm is missing: run `make install`")}
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-scaleout-") as folder, postgres_server() as server:
            trial = run(starter, server.new_database(), Path(folder), shape or TrialShape(), say)
    except (ChildError, ServerMissingError) as error:
        return {LOST: not_measured(str(error)[-600:])}
    details = {**dataclasses.asdict(trial), "budget_held": trial.budget_held}
    for name, one in trial.held.items():
        details["held"][name]["kept_share"] = round(one.kept_share, 4)
    if reason := _broken(trial):
        return {LOST: Measurement(None, 0, {"reason": reason, **details})}
    return {LOST: Measurement(float(trial.lost), trial.requests, details)}


def _broken(trial: Trial) -> str:
    """Return why a count of lost requests would not prove the whole promise; empty if it would."""
    if not trial.budget_held:
        return f"{trial.paid_usd} USD were spent under a cap of {trial.cap_usd} USD"
    if trial.found < trial.looked_up:
        return f"{trial.looked_up - trial.found} requests are unknown to the router that did not serve them"
    if len(trial.served["before"]) < 2:
        return f"only {', '.join(trial.served['before'])} served before one engine ended"
    return "; ".join(trial.affinity_faults)
