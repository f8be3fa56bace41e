"""The registry of the router's metrics, the counters of alerts, and the log line of a failed request."""

from __future__ import annotations

import logging

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from spillway_router.core.money.budget import BudgetAlert
from spillway_router.core.routing.model import RequestRecord
from spillway_router.ledger.holds import ExcessCharge
from spillway_router.metrics.requests import RequestMetrics
from spillway_router.metrics.unexpected import UnexpectedErrorMetrics

log = logging.getLogger("spillway")


class Metrics:
    """Counters of finished requests and of alerts; `add` brings in collectors of the present state."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._alerts = Counter(
            "spillway_budget_alerts", "Budget thresholds passed", ["scope", "period", "at"], registry=self.registry
        )
        self._deliveries = Counter(
            "spillway_alert_deliveries", "Alert webhook: sent, retried, lost", ["result"], registry=self.registry
        )
        self._excess = Counter(
            "spillway_charges_above_hold", "Charges above the hold taken for them", ["backend"], registry=self.registry
        )
        self._requests = RequestMetrics()
        self.on_request = self._requests.on_request
        """The hook for finished requests."""
        self.on_drained = self._requests.on_drained
        """The hook for attempts that were settled after their request had ended."""
        self.add(self._requests, UnexpectedErrorMetrics())

    def add(self, *collectors: Collector) -> None:
        """Add collectors, whose families are rendered with the others."""
        for collector in collectors:
            self.registry.register(collector)

    def on_alert(self, alert: BudgetAlert) -> None:
        """Count a budget threshold that was passed."""
        self._alerts.labels(alert.label or alert.scope, alert.period, str(alert.at)).inc()

    def on_excess(self, excess: ExcessCharge) -> None:
        """Count a charge above its hold."""
        self._excess.labels(excess.backend).inc()

    def on_delivery(self, result: str) -> None:
        """Count a webhook message that was sent, retried or lost."""
        self._deliveries.labels(result).inc()

    def render(self) -> tuple[str, bytes]:
        """Return the content type and the page in Prometheus text format."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)


def log_request(record: RequestRecord) -> None:
    """Log a request that failed with a 5xx status. This hook ignores the others, which are only counted."""
    if record.status < 500:
        return
    failures = "; ".join(f"{a.backend}: {a.outcome.kind} {a.outcome.detail}" for a in record.attempts)
    log.warning("request %s ended with %s %s (%s)", record.facts.request_id, record.status, record.code, failures)
