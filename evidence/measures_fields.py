"""Charges above their holds, and caps that are overspent, for every field, tool and shape of a request."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import apsw

from evidence.money.field_cases import CASES
from evidence.money.field_trial import field_trial
from evidence.results import Measurement

IDS = ("money.charged_above_hold", "money.overspent")
REQUESTS = 100_000
_VERSIONS = {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

Say = Callable[[str], None]


def fields(say: Say, requests: int = REQUESTS, seed: int = 13, *, fault: bool = False) -> dict[str, Measurement]:
    """Measure both on two router processes, 64 requests at once, against providers that bill as they document.

    A bill that is not the charge to the nano-dollar, a fault that `verify` finds, a hold left open and a case with an
    unexpected status make the measurement void. `fault` makes the routers hold too little.
    """
    with tempfile.TemporaryDirectory() as name:
        trial = field_trial(Path(name), requests, seed, say, fault=fault)
    details = {**asdict(trial), "cases": len(CASES), "cases_refused": sum(case.refused for case in CASES)}
    say(f"  {details}")
    void = {
        name: value
        for name, value in details.items()
        if value and name in ("charged_unlike_billed", "bills_without_hold", "open_holds", "unexpected")
    }
    if (void or trial.peak_share < 0.9) and not fault:
        reason = f"not usable: {void}" if void else f"no cap was reached, the fullest at {trial.peak_share}"
        return {promise: Measurement(None, 0, {"reason": reason, **details}) for promise in IDS}
    return {
        "money.charged_above_hold": Measurement(trial.above_hold + trial.verify_faults, requests, details, _VERSIONS),
        "money.overspent": Measurement(trial.overspent_nano, requests, details, _VERSIONS),
    }
