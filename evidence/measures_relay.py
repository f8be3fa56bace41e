"""Clients that leave and clients that read slowly, as the upstream and the router's memory see them."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from loadtests.bench.behaviour import disconnects, p99, slow_readers, summary
from loadtests.bench.install import Unavailable
from loadtests.bench.processes import BenchError
from loadtests.bench.start import started
from loadtests.bench.systems import SYSTEMS, System

from evidence.results import Measurement, not_measured

LEAVING_CLIENTS = 300
SLOW_CLIENTS = 5


def disconnect_close(
    say: Callable[[str], None], system: System = SYSTEMS["spillway"], trials: int = LEAVING_CLIENTS
) -> dict[str, Measurement]:
    """Measure the p99 milliseconds from a client's close to that of its upstream connection, over three ways of
    leaving.
    """
    try:
        system.prepare()
        with started(system) as running:
            closed = disconnects(running, trials, say)
    except (BenchError, Unavailable, httpx.HTTPError, OSError) as error:
        return {"relay.disconnect_close": not_measured(str(error))}
    value = round(p99([one.ms for one in closed]), 2)
    details = {"by_way_of_leaving": summary(closed), "worst_ms": round(max(one.ms for one in closed), 2)}
    return {"relay.disconnect_close": Measurement(value, len(closed), details)}


def slow_reader_growth(
    say: Callable[[str], None], system: System = SYSTEMS["spillway"], trials: int = SLOW_CLIENTS
) -> dict[str, Measurement]:
    """Measure the largest growth of resident memory while one client reads nothing for 2.5 s of a 33 MB stream."""
    try:
        system.prepare()
        with started(system) as running:
            readers = slow_readers(running, trials, say)
    except (BenchError, Unavailable, OSError) as error:
        return {"relay.slow_reader_growth": not_measured(str(error))}
    details = {
        "growth_mib": [round(one.growth_mib, 2) for one in readers],
        "answer_mib": round(readers[0].answer_mib, 1),
        "answers_whole": sum(one.got_all for one in readers),
    }
    if not all(one.got_all for one in readers):
        return {"relay.slow_reader_growth": Measurement(None, 0, {"reason": "an answer was cut short", **details})}
    return {"relay.slow_reader_growth": Measurement(round(max(one.growth_mib for one in readers), 2), trials, details)}
