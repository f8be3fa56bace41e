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
    loss of an engine, and scaling up and down.

    A stream that an engine's sudden death cuts off after its first content ends with the promised error, and nothing of
    another answer may follow (docs/decisions/0056). It is lost unless that error came and the same request, sent once
    more, got its whole answer. In every other phase an interrupted stream is lost.
    """
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
        "streams_interrupted": sum(one.interrupted for one in outcomes.values()),
        "counted": "a stream that ends with upstream_interrupted is lost; after an engine's death without notice, "
        "only if the request, sent once more, does not get its whole answer",
        "engines": "processes of the fake engine; nothing ran on a GPU",
    }
    return {LOST: Measurement(float(sum(one.lost for one in outcomes.values())), requests, details)}
