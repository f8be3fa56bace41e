"""Prometheus series of unexpected errors."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from spillway_router.aio.unexpected import UNEXPECTED


class UnexpectedErrorMetrics(Collector):
    """Errors that are faults of the router, by place; every place is there from the start."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the one family."""
        family = CounterMetricFamily(
            "spillway_unexpected_errors", "Errors of the router itself; its log has each", labels=["place"]
        )
        for place, count in sorted(UNEXPECTED.counts.items()):
            family.add_metric([place], count)
        yield family
