"""Telemetry: hooks over the frozen RequestRecord, and gauges read when somebody scrapes. Nothing here decides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from spillway_router.core.money.budget import BudgetAlert
from spillway_router.core.routing.model import RequestRecord
from spillway_router.metrics.requests import RequestMetrics
from spillway_router.signals.board import Board
from spillway_router.signals.gpu import GpuTelemetry

log = logging.getLogger("spillway")


@dataclass(frozen=True, slots=True)
class BudgetGauge:
    """One budget as it stands: US dollars, and the gain per USD that pacing asks, where it does."""

    scope: str
    period: str
    limit_usd: float
    spent_usd: float
    held_usd: float
    price_of_gain: float | None = None


class Metrics:
    """Counters of finished requests, and a collector for what is true at the moment."""

    def __init__(self, board: Board, clock: Callable[[], float], health: Callable[[], Mapping[str, float]]) -> None:
        self.registry = CollectorRegistry()
        self.gpus = GpuTelemetry(False)
        self.scrape_up: dict[str, bool] = {}
        self.budgets: Callable[[], Iterable[BudgetGauge]] = tuple
        r = self.registry
        self._alerts = Counter(
            "spillway_budget_alerts", "Budget thresholds passed", ["scope", "period", "at"], registry=r
        )
        self._deliveries = Counter(
            "spillway_alert_deliveries", "Alert webhook: sent, retried, lost", ["result"], registry=r
        )
        self._tally = RequestMetrics()
        self.on_request = self._tally.on_request
        """The hook."""
        r.register(self._tally)
        r.register(_Now(board, clock, health, self))

    def add(self, collector: Collector) -> None:
        """More families, collected with the others."""
        self.registry.register(collector)

    def on_alert(self, alert: BudgetAlert) -> None:
        """A budget threshold was passed."""
        self._alerts.labels(alert.scope, alert.period, str(alert.at)).inc()

    def on_delivery(self, result: str) -> None:
        """An alert's webhook message was sent, tried again or lost."""
        self._deliveries.labels(result).inc()

    def render(self) -> tuple[str, bytes]:
        """Content type and exposition."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)


class _Now(Collector):
    """Gauges of the board, the GPUs and the ledger writer, computed at the scrape."""

    def __init__(
        self, board: Board, clock: Callable[[], float], health: Callable[[], Mapping[str, float]], metrics: Metrics
    ) -> None:
        self._board, self._clock, self._health, self._metrics = board, clock, health, metrics

    def collect(self) -> Iterable[Metric]:
        """The families."""
        signals = self._board.current(self._clock())
        up = GaugeMetricFamily("spillway_backend_up", "1 if the backend may get requests", labels=["backend"])
        backlog = GaugeMetricFamily("spillway_backlog_tokens", "Prompt tokens not yet read", labels=["backend"])
        in_flight = GaugeMetricFamily("spillway_in_flight", "Calls under way", labels=["backend"])
        rate = GaugeMetricFamily("spillway_prefill_tokens_per_second", "Learned prefill rate", labels=["backend"])
        scrape = GaugeMetricFamily("spillway_scrape_up", "1 if the engine's metrics are complete", labels=["backend"])
        for name, known in signals.backends.items():
            up.add_metric([name], float(known.health == "up" and not known.breaker_open))
            if known.backlog is not None and known.rates is not None:
                backlog.add_metric([name], known.backlog.prefill_tokens)
                rate.add_metric([name], known.rates.prefill_tokens_per_s)
        for name, count in self._board.in_flight().items():
            in_flight.add_metric([name], count)
        for name, ok in self._metrics.scrape_up.items():
            scrape.add_metric([name], float(ok))
        yield from (up, backlog, in_flight, rate, scrape)
        for name, value in self._health().items():
            yield GaugeMetricFamily(name, name.replace("_", " "), value=value)
        yield from self._budgets()
        yield from self._gpus()

    def _budgets(self) -> Iterable[Metric]:
        labels = ["scope", "period"]
        limit = GaugeMetricFamily("spillway_budget_limit_usd", "Cap of the period in US dollars", labels=labels)
        spent = GaugeMetricFamily("spillway_budget_spent_usd", "Spent in the period in US dollars", labels=labels)
        held = GaugeMetricFamily("spillway_budget_held_usd", "Held for calls under way in US dollars", labels=labels)
        price = GaugeMetricFamily(
            "spillway_pacing_gain_per_usd", "Gain that an escalation must bring per US dollar", labels=labels
        )
        for line in self._metrics.budgets():
            names = [line.scope, line.period]
            limit.add_metric(names, line.limit_usd)
            spent.add_metric(names, line.spent_usd)
            held.add_metric(names, line.held_usd)
            if line.price_of_gain is not None:
                price.add_metric(names, line.price_of_gain)
        yield from (family for family in (limit, spent, held, price) if family.samples)

    def _gpus(self) -> Iterable[Metric]:
        gpus = self._metrics.gpus
        yield GaugeMetricFamily("gpu_telemetry_up", "1 if NVML answers", value=float(gpus.up))
        series = {
            "spillway_gpu_utilisation_ratio": ("Share of time a kernel ran", "utilisation"),
            "spillway_gpu_memory_used_bytes": ("GPU memory in use", "memory_used_bytes"),
            "spillway_gpu_temperature_celsius": ("GPU temperature", "temperature_c"),
            "spillway_gpu_power_watts": ("GPU power", "power_w"),
        }
        for name, (text, field) in series.items():
            family = GaugeMetricFamily(name, text, labels=["gpu"])
            for reading in gpus.readings:
                value = getattr(reading, field)
                if value is not None:
                    family.add_metric([str(reading.index)], value)
            if family.samples:
                yield family


def log_request(record: RequestRecord) -> None:
    """The hook that writes a line for requests that went wrong; those that went well are counted, not logged."""
    if record.status < 500:
        return
    failed = "; ".join(f"{a.backend}: {a.outcome.kind} {a.outcome.detail}" for a in record.attempts)
    log.warning("request %s ended with %s %s (%s)", record.facts.request_id, record.status, record.code, failed)
