"""Metrics of the shares of experiments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.core.routing.moving_arms import shares_in_force
from spillway_router.proxy.exchange.active_config import ActiveConfig


class ShareMetrics(Collector):
    """The shares of all arms in force, and how often bandits moved them."""

    def __init__(self, config: Callable[[], ActiveConfig], moves: Callable[[], Mapping[str, int]]) -> None:
        self._config = config
        self._moves = moves

    def collect(self) -> Iterable[Metric]:
        """Yield the families. An arm is named as experiment/arm."""
        shares = GaugeMetricFamily("spillway_arm_share", "Share of an experiment's units in an arm", labels=["arm"])
        for experiment, arms in shares_in_force(self._config().rules).items():
            for arm, share in arms.items():
                shares.add_metric([f"{experiment}/{arm}"], share)
        moves = CounterMetricFamily(
            "spillway_share_moves", "Moves of an experiment's shares by its bandit", labels=["experiment"]
        )
        for experiment, count in self._moves().items():
            moves.add_metric([experiment], count)
        return shares, moves
