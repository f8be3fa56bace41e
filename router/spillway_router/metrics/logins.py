"""Prometheus series of failed logins."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from spillway_router.proxy.request.failed_logins import FailedLogins


class LoginMetrics(Collector):
    """Failed logins by reason, which are all there from the start, and those that were answered with a 429."""

    def __init__(self, logins: FailedLogins) -> None:
        self._logins = logins

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Return the two families."""
        failed = CounterMetricFamily("spillway_failed_logins", "Requests refused for want of a key", labels=["reason"])
        for reason, count in sorted(self._logins.counts.items()):
            failed.add_metric([reason], count)
        yield failed
        slowed = CounterMetricFamily("spillway_slowed_logins", "Failed logins answered with 429, as there were many")
        slowed.add_metric([], self._logins.slowed)
        yield slowed
