"""Load tests by locust against the running product: how many of the six scenarios are green, with a written report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from demo.processes import ChildError
from loadtests.bench import machine
from loadtests.locust_runs import report, session
from loadtests.locust_runs.__main__ import versions
from loadtests.locust_runs.scenarios import EVERY_DAY
from loadtests.locust_runs.session import NoLocustError, SessionSettings

from evidence.results import Measurement, not_measured

RUNS_GREEN = "loadtest.runs_green"
SECONDS = 20.0


def runs_green(
    say: Callable[[str], None],
    names: Sequence[str] = EVERY_DAY,
    seconds: float = SECONDS,
    engine: Sequence[str] = (),
) -> dict[str, Measurement]:
    """Count the scenarios in which every planned request was answered completely, counted, on schedule and reported.

    `engine` holds options of the fake engine, such as a seeded fault.
    """
    try:
        results = session.run(SessionSettings(tuple(names), seconds, sweep=False, engine=tuple(engine)), say)
    except (ChildError, NoLocustError) as error:
        return {RUNS_GREEN: not_measured(str(error))}
    with tempfile.TemporaryDirectory() as folder:
        page = report.write(Path(folder), results, machine.describe(), versions(), session.stamp())
        text = page.read_text(encoding="utf-8")
    reported = [run for run in results.runs if f"<td>{run.name}</td>" in text]
    green = [run for run in reported if not run.wrong]
    details = {
        "capacity_chats_per_s": round(results.capacity, 3),
        "scenarios": {
            run.name: {
                "requests": run.figures.requests,
                "failed": run.figures.failed,
                "ttft_p50_s": run.figures.ttft_p50_s,
                "ttft_p99_s": run.figures.ttft_p99_s,
                "in_time": run.figures.slo_share,
                "cloud": run.figures.cloud_share,
                "usd_per_1000": run.figures.usd_per_1000,
                "sent_late_p99_s": run.figures.lag_p99_s,
                "wrong": list(run.wrong),
            }
            for run in results.runs
        },
        "report_bytes": len(text.encode()),
    }
    requests = sum(run.figures.requests for run in results.runs)
    return {RUNS_GREEN: Measurement(float(len(green)), requests, details, {"locust": versions()["locust"]})}
