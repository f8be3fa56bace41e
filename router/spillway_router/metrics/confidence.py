"""Metrics of the quality of local answers: audits, the thresholds that audits move, and reviews that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.documents.reviews import ReviewQueue
from spillway_router.proxy.audits.audits import Audits
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.audit_sample import AUDIT_KINDS


class AuditMetrics(Collector):
    """Audits and thresholds of each kind of answers (chat, document)."""

    def __init__(self, audits: Audits, active_config: Callable[[], ActiveConfig]) -> None:
        self._audits, self._active_config = audits, active_config

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        yield from self._audited()
        yield from self._thresholds()

    def _audited(self) -> Iterable[Metric]:
        calls = CounterMetricFamily(
            "spillway_audits_asked", "Local answers that a stronger model answered again", labels=["kind"]
        )
        ended = CounterMetricFamily("spillway_audits", "Audits by result", labels=["kind", "result"])
        probes = CounterMetricFamily(
            "spillway_audit_probes", "Escalated drafts compared with their better answer", labels=["kind", "result"]
        )
        counts = self._audits.counts
        for kind in AUDIT_KINDS:
            calls.add_metric([kind], counts.calls.get(kind, 0))
        for (kind, result), count in counts.results.items():
            ended.add_metric([kind, result], count)
        for (kind, result), count in counts.probes.items():
            probes.add_metric([kind, result], count)
        return calls, ended, probes

    def _thresholds(self) -> Iterable[Metric]:
        configured = GaugeMetricFamily(
            "spillway_confidence_threshold_configured", "Least confidence kept, as configured", labels=["kind"]
        )
        threshold = GaugeMetricFamily(
            "spillway_confidence_threshold",
            "Least confidence kept, as audits moved it; above 1 no local answer is kept",
            labels=["kind"],
        )
        revoked = GaugeMetricFamily(
            "spillway_certificate_revoked", "1 if audits contradict the threshold", labels=["kind"]
        )
        for state in self._audits.threshold_states(self._active_config()):
            configured.add_metric([state.kind], state.configured)
            threshold.add_metric([state.kind], state.threshold)
            revoked.add_metric([state.kind], float(state.drift.revoked))
        return configured, threshold, revoked


class ReviewMetrics(Collector):
    """Documents that wait for a person, as of the queue's last count."""

    def __init__(self, reviews: ReviewQueue) -> None:
        self._reviews = reviews

    def collect(self) -> Iterable[Metric]:
        """Yield the families; none while the number is unknown."""
        open_reviews = self._reviews.open_reviews()
        if open_reviews is not None:
            count, oldest_s = open_reviews
            yield GaugeMetricFamily("spillway_reviews_open", "Documents that wait for a person", value=count)
            yield GaugeMetricFamily(
                "spillway_reviews_oldest_seconds", "Age of the oldest waiting document in seconds", value=oldest_s
            )
