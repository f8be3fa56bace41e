"""The metric of the log itself."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.aio.line_output import LineOutput


class LogMetrics(Collector):
    """How many lines of the log were dropped, because its reader paused."""

    def __init__(self, output: LineOutput) -> None:
        self._output = output

    def collect(self) -> Iterable[Metric]:
        """Yield the family."""
        yield CounterMetricFamily(
            "spillway_log_lines_dropped", "Log lines that nobody read in time", value=float(self._output.dropped)
        )
