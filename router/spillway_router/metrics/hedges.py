"""Metrics of hedges."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.proxy.memory.hedges import Hedges


class HedgeMetrics(Collector):
    """Hedges by result."""

    def __init__(self, hedges: Hedges) -> None:
        self._hedges = hedges

    def collect(self) -> Iterable[Metric]:
        """Yield the family."""
        hedges = CounterMetricFamily(
            "spillway_hedges", "Second calls for streams that did not begin", labels=["result"]
        )
        for result, count in self._hedges.counts.items():
            hedges.add_metric([result], count)
        return (hedges,)
