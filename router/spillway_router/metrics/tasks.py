"""Prometheus series of the background tasks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from spillway_router.aio.watched import Watchdog


class TaskMetrics(Collector):
    """How often the watchdog saw each background task stopped; a task has a series once it was looked at."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the one family."""
        family = CounterMetricFamily("spillway_stopped_tasks", "Times a background task died or hung", labels=["task"])
        for task, count in sorted(self._watchdog.counts.items()):
            family.add_metric([task], count)
        yield family
