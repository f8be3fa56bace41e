"""How many bytes of private requests a stub cloud gets over all paths, also with either guard of privacy off."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from evidence.privacy.two_guards import Leaks, send_private
from evidence.results import Measurement, not_measured
from spillway_router.runtime.router import Runtime
from spillway_router.testing.guards import without_routing_guard, without_transport_guard

E2E, ONE_GUARD_OFF = "privacy.leaked_bytes_e2e", "privacy.leaked_bytes_one_guard_off"
IDS = (E2E, ONE_GUARD_OFF)
REQUESTS = 5_000
REQUESTS_ONE_OFF = 20_000
"""Half of them with each guard switched off."""

Say = Callable[[str], None]
SwitchOff = Callable[[Runtime], None]


def two_guards(
    say: Say, requests: int = REQUESTS, requests_one_off: int = REQUESTS_ONE_OFF, *, fault: bool = False
) -> dict[str, Measurement]:
    """Send private requests through a whole router, first with both guards, then with one of them.

    It is void if requests that are not private do not reach the cloud. `fault`: both guards are off.
    """
    both = _sent(requests, _without_any if fault else None)
    say(f"  {both.leaked_bytes} bytes of {both.requests} requests with both guards")
    halves = [
        _sent(requests_one_off // 2, _without_any if fault else off)
        for off in (without_routing_guard, without_transport_guard)
    ]
    say(f"  {[half.leaked_bytes for half in halves]} bytes without the routing and without the transport guard")
    return {E2E: _measured([both]), ONE_GUARD_OFF: _measured(halves)}


def _without_any(runtime: Runtime) -> None:
    without_routing_guard(runtime)
    without_transport_guard(runtime)


def _sent(requests: int, switch_off: SwitchOff | None) -> Leaks:
    with tempfile.TemporaryDirectory() as name:
        return asyncio.run(send_private(Path(name), requests, switch_off))


def _measured(runs: list[Leaks]) -> Measurement:
    controls, arrived = sum(run.controls for run in runs), sum(run.controls_at_cloud for run in runs)
    if arrived < controls:
        return not_measured(f"only {arrived} of {controls} controls reached the cloud")
    details = {
        "leaked_bytes": [run.leaked_bytes for run in runs],
        "controls_at_cloud": arrived,
        "states_of_the_engine": [dict(run.by_engine) for run in runs],
    }
    return Measurement(sum(run.leaked_bytes for run in runs), sum(run.requests for run in runs), details)
