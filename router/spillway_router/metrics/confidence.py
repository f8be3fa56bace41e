"""What is known of how good local answers are, as Prometheus families: audits, thresholds, reviews that wait.

Plain values, read when somebody scrapes; runtime.py says where they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.core.frozen import dataclass


@dataclass(frozen=True, slots=True)
class AuditGauge:
    """Audits of one kind of answers (chat, document): calls made, how they ended, and what probes said."""

    kind: str
    asked: int
    ended: Mapping[str, int]
    probes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ThresholdGauge:
    """The threshold of one kind of answers, as configured and as audits moved it."""

    kind: str
    configured: float
    threshold: float
    revoked: bool


@dataclass(frozen=True, slots=True)
class ReviewGauge:
    """Reviews that wait for a person, and the age of the oldest in seconds."""

    open: int
    oldest_s: float


class ConfidenceMetrics(Collector):
    """See the module docstring. Each source is called at a scrape and must not wait; reviews None: not known now."""

    def __init__(
        self,
        audits: Callable[[], Iterable[AuditGauge]],
        gates: Callable[[], Iterable[ThresholdGauge]],
        reviews: Callable[[], ReviewGauge | None],
    ) -> None:
        self._audits, self._gates, self._reviews = audits, gates, reviews

    def collect(self) -> Iterable[Metric]:
        """The families."""
        yield from self._audited()
        yield from self._gated()
        waiting = self._reviews()
        if waiting is not None:
            yield GaugeMetricFamily("spillway_reviews_open", "Documents that wait for a person", value=waiting.open)
            yield GaugeMetricFamily(
                "spillway_reviews_oldest_seconds", "Age of the oldest of them in seconds", value=waiting.oldest_s
            )

    def _audited(self) -> Iterable[Metric]:
        asked = CounterMetricFamily("spillway_audits_asked", "Local answers asked of a stronger model", labels=["kind"])
        ended = CounterMetricFamily("spillway_audits", "Audits by result", labels=["kind", "result"])
        probes = CounterMetricFamily(
            "spillway_audit_probes", "Escalated drafts compared with their better answer", labels=["kind", "result"]
        )
        for audits in self._audits():
            asked.add_metric([audits.kind], audits.asked)
            for result, count in audits.ended.items():
                ended.add_metric([audits.kind, result], count)
            for result, count in audits.probes.items():
                probes.add_metric([audits.kind, result], count)
        return asked, ended, probes

    def _gated(self) -> Iterable[Metric]:
        configured = GaugeMetricFamily(
            "spillway_confidence_threshold_configured", "Least confidence kept, as configured", labels=["kind"]
        )
        threshold = GaugeMetricFamily(
            "spillway_confidence_threshold", "The same as audits moved it; above 1 nothing is kept", labels=["kind"]
        )
        revoked = GaugeMetricFamily(
            "spillway_certificate_revoked", "1 if audits speak against the threshold", labels=["kind"]
        )
        for gate in self._gates():
            configured.add_metric([gate.kind], gate.configured)
            threshold.add_metric([gate.kind], gate.threshold)
            revoked.add_metric([gate.kind], float(gate.revoked))
        return configured, threshold, revoked
