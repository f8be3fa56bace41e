"""What is booked for paid streams whose client leaves, beside the bill of a provider that bills as providers do."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import apsw

from evidence.money.stopped_streams import trial
from evidence.results import Measurement

STOPPED_STREAM_ERROR = "money.stopped_stream_error"
CLIENTS = 3200
_VERSIONS = {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}

Say = Callable[[str], None]


def stopped_streams(say: Say, clients: int = CLIENTS, seed: int = 13, *, fault: bool = False) -> dict[str, Measurement]:
    """Measure the relative error at the provider that goes on and so tells its usage, over all four protocols with 64
    clients at once; the details have the one that stops too.

    Charges above their bound, bills above what a row says is the most, open holds and faults that `verify` finds make
    it void. `fault` reads nothing on.
    """
    with tempfile.TemporaryDirectory() as name:
        run = asyncio.run(trial(Path(name), clients, seed, fault=fault))
    both = (run.continues, run.stops)
    details = {**asdict(run), "error_where_it_stops": round(run.stops.error, 4)}
    say(f"  {details}")
    void = {
        "above_bound": sum(one.above_bound for one in both),
        "above_at_most": sum(one.below_at_most for one in both),
        "open_holds": run.open_holds,
        "verify_faults": run.verify_faults,
        "unbilled": run.unbilled,
    }
    if any(void.values()) and not fault:
        return {STOPPED_STREAM_ERROR: Measurement(None, 0, {"reason": f"not usable: {void}", **details})}
    return {STOPPED_STREAM_ERROR: Measurement(run.continues.error, run.continues.left, details, _VERSIONS)}
