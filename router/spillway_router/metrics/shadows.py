"""Metrics of shadows: what became of them, and whom they chose against whom who answered."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.proxy.shadows.shadows import Shadows


class ShadowMetrics(Collector):
    """Shadows by arm and result, and their choices."""

    def __init__(self, shadows: Shadows) -> None:
        self._shadows = shadows

    def collect(self) -> Iterable[Metric]:
        """Yield the families. An arm is named as experiment/arm; what was dropped belongs to an experiment alone."""
        counts = self._shadows.counts
        results = CounterMetricFamily("spillway_shadows", "Requests of shadows by result", labels=["arm", "result"])
        for (arm, result), count in counts.results.items():
            results.add_metric([arm, result], count)
        choices = CounterMetricFamily(
            "spillway_shadow_choices",
            "Decisions of shadows by the backend that answered and the one chosen",
            labels=["arm", "answered", "chosen"],
        )
        for labels, count in counts.choices.items():
            choices.add_metric(list(labels), count)
        return results, choices
