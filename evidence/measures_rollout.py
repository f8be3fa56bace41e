"""Requests that are lost while machines, routers and engines come and go, by real processes and the real SDK."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from demo.processes import ChildError
from loadtests.rollout.trial import RolloutShape, trial

from evidence.results import Measurement, not_measured
from spillway_router.testing.postgres_server import ServerMissingError, postgres_server

LOST = "fleet.lost_requests"


def lost_requests(say: Callable[[str], None], shape: RolloutShape | None = None) -> dict[str, Measurement]:
    """Count the requests without a whole answer over a spot notice, a rolling upgrade of routers and of engines, the
    loss of an engine, and scaling up and down."""
    shape = shape or RolloutShape()
    try:
        with tempfile.TemporaryDirectory(prefix="spillway-rollout-") as folder, postgres_server() as server:
            outcomes = asyncio.run(trial(Path(folder), server.new_database(), shape, say))
    except (ChildError, ServerMissingError) as error:
        return {LOST: not_measured(str(error)[-600:])}
    requests = sum(one.requests for one in outcomes.values())
    details = {
        "phases": {name: dataclasses.asdict(one) for name, one in outcomes.items()},
        "client": f"openai's SDK for Python, max_retries={shape.retries}, half of the answers streamed",
        "streams_that_ended_with_an_error": sum(one.told_broken for one in outcomes.values()),
        "engines": "processes of the fake engine; nothing ran on a GPU",
    }
    return {LOST: Measurement(float(sum(one.lost for one in outcomes.values())), requests, details)}
