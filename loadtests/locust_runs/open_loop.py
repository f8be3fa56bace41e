"""locust file: sends a plan's requests at their moments, whatever is still in flight.

.venv-loadtest/bin/locust -f loadtests/locust_runs/open_loop.py --headless --host URL --plan FILE --samples FILE
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Group
from locust import User, events, task

from loadtests.locust_runs import samples
from loadtests.locust_runs.player import TIMEOUT_S, Player, end_with_parent, load

_LEAD_S = 0.2


@events.init_command_line_parser.add_listener
def _arguments(parser: Any) -> None:
    end_with_parent()
    parser.add_argument("--plan", required=True, help="plan file of loadtests.locust_runs")
    parser.add_argument("--samples", required=True, help="where to write one JSON line per request")


class Schedule(User):  # type: ignore[misc]
    """The only user: it plays the whole plan and ends the run."""

    fixed_count = 1

    @task
    def play(self) -> None:
        """Send every request at its moment, each in a greenlet of its own."""
        options = self.environment.parsed_options
        _, asks = load(options.plan)
        player = Player(self.host or "", self.environment)
        group = Group()
        start = time.monotonic() + _LEAD_S
        for ask in asks:
            due = start + ask.at_s
            gevent.sleep(max(0.0, due - time.monotonic()))
            group.spawn(player.send, ask, start, due)
        group.join(timeout=2 * TIMEOUT_S)
        samples.write(Path(options.samples), player.samples)
        self.environment.runner.quit()
        gevent.sleep(TIMEOUT_S)  # quit ends this greenlet; without a pause the plan would start again
