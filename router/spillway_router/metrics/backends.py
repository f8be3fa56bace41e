"""Metrics of backends, engines and GPUs, read from the board and the engine watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_router.signals.board import Board
from spillway_router.signals.gpu import GpuTelemetry
from spillway_router.signals.outages import EngineOutages


class BackendMetrics(Collector):
    """Health and load of every backend. `clock` is monotonic seconds.

    `metrics_complete` returns, by backend, whether the engine's metrics page had every series.
    """

    def __init__(
        self, board: Board, clock: Callable[[], float], metrics_complete: Callable[[], Mapping[str, bool]]
    ) -> None:
        self._board, self._clock, self._metrics_complete = board, clock, metrics_complete

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        up = GaugeMetricFamily("spillway_backend_up", "1 if the backend may get requests", labels=["backend"])
        backlog = GaugeMetricFamily("spillway_backlog_tokens", "Prompt tokens not yet read", labels=["backend"])
        in_flight = GaugeMetricFamily("spillway_in_flight", "Calls in progress", labels=["backend"])
        rate = GaugeMetricFamily("spillway_prefill_tokens_per_second", "Learned prefill rate", labels=["backend"])
        scrape = GaugeMetricFamily("spillway_scrape_up", "1 if the engine's metrics are complete", labels=["backend"])
        for name, signals in self._board.current(self._clock()).backends.items():
            up.add_metric([name], float(signals.health == "up" and not signals.breaker_open))
            if signals.backlog is not None and signals.rates is not None:
                backlog.add_metric([name], signals.backlog.prefill_tokens)
                rate.add_metric([name], signals.rates.prefill_tokens_per_s)
        for name, count in self._board.in_flight().items():
            in_flight.add_metric([name], count)
        for name, complete in self._metrics_complete().items():
            scrape.add_metric([name], float(complete))
        yield from (up, backlog, in_flight, rate, scrape)


class EngineMetrics(Collector):
    """How often and how long each local engine was out of the rotation."""

    def __init__(self, outages: EngineOutages) -> None:
        self._outages = outages

    def collect(self) -> Iterable[Metric]:
        """Yield the families."""
        count = CounterMetricFamily("spillway_engine_outages", "Times the engine left the rotation", labels=["backend"])
        seconds = CounterMetricFamily(
            "spillway_engine_outage_seconds", "Length of the outages that are over", labels=["backend"]
        )
        for name, number in self._outages.counts.items():
            count.add_metric([name], number)
        for name, length_s in self._outages.seconds.items():
            seconds.add_metric([name], length_s)
        yield from (count, seconds)


class GpuMetrics(Collector):
    """The last reading of the GPUs."""

    def __init__(self, gpus: Callable[[], GpuTelemetry]) -> None:
        self._gpus = gpus

    def collect(self) -> Iterable[Metric]:
        """Yield the families; one that no GPU has a value for is left out."""
        gpus = self._gpus()
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
