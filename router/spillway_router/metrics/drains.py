"""Metrics of answers that are read to their usage after their client left."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.proxy.exchange.drains import Drains


class DrainMetrics(Collector):
    """How many are being read, and how the others ended."""

    def __init__(self, drains: Drains) -> None:
        self._drains = drains

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield GaugeMetricFamily(
            "spillway_drains_in_progress", "Answers read to their usage for nobody", value=self._drains.in_progress
        )
        ended = CounterMetricFamily(
            "spillway_drains", "Answers that their client left, by how reading on ended", labels=["backend", "result"]
        )
        for (backend, result), count in sorted(self._drains.results.items()):
            ended.add_metric([backend, result], count)
        yield ended
