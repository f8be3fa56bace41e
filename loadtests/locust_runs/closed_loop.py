"""locust file: users that wait for their answer before they send again, as many as the plan's shape says.

    .venv-loadtest/bin/locust -f loadtests/locust_runs/closed_loop.py --headless --host URL --plan FILE --samples FILE

Each user sends a request every PACE_S seconds while the server keeps up, so rate x PACE_S users offer the shape's rate.
A slow server slows them down: closed-loop figures leave that out, which is why open_loop.py is the default.
"""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

from locust import LoadTestShape, User, constant_pacing, events, task

from loadtests.locust_runs import samples
from loadtests.locust_runs.player import Player, end_with_parent, load
from loadtests.locust_runs.shapes import LoadShape

PACE_S = 5.0
_run: dict[str, Any] = {}


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    end_with_parent()
    parser.add_argument("--plan", required=True, help="plan file of loadtests.locust_runs")
    parser.add_argument("--samples", required=True, help="where to write one JSON line per request")


@events.test_start.add_listener
def _begin(environment: Any, **_: Any) -> None:
    corners, asks = load(environment.parsed_options.plan)
    _run.update(shape=LoadShape(tuple(corners)), asks=itertools.cycle(asks), start=time.monotonic())
    _run["player"] = Player(environment.host, environment)


@events.test_stop.add_listener
def _end(environment: Any, **_: Any) -> None:
    samples.write(Path(environment.parsed_options.samples), _run["player"].samples)


class Client(User):  # type: ignore[misc]
    """One user: it sends the next request of the plan, waits for the answer, and pauses up to its pace."""

    wait_time = constant_pacing(PACE_S)

    @task
    def ask(self) -> None:
        """Send one request."""
        _run["player"].send(next(_run["asks"]), _run["start"], time.monotonic())


class PlannedShape(LoadTestShape):  # type: ignore[misc]
    """The number of users over time, from the plan."""

    def tick(self) -> tuple[int, float] | None:
        """Return (users, users started per second), or None at the end."""
        shape = _run.get("shape")
        moment = self.get_run_time()
        if shape is None:
            return 1, 1.0
        if moment >= shape.seconds:
            return None
        users = max(1, math.ceil(shape.rate(moment) * PACE_S))
        return users, float(users)
