"""Sends spans and metrics as OTLP over HTTP, with OpenTelemetry's SDK. Imported only where telemetry is configured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from spillway_router.core.money.tariff import NANO
from spillway_router.core.routing.model import RequestRecord
from spillway_router.telemetry import conventions
from spillway_router.telemetry.export import ExportSettings, Sender
from spillway_router.telemetry.spans import Place, SpanValues, Value, call_attributes

TIMEOUT_S = 5.0
"""For one export, its repetitions included."""
_SCOPE = "spillway"
_KINDS = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT}
_MOST_MODELS = 100
_OTHER = "other"
"""Takes the place of the names of models after the first hundred, which bounds the series."""


def open_sender(settings: ExportSettings) -> Sender:
    """Return what sends to the collector of the settings."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # the export itself tells what fails, once
    return OtlpSender(settings)


class OtlpSender(Sender):
    """Sends to one collector. Its methods block, and are called on one thread. The environment is not read: neither its
    proxies nor OpenTelemetry's own variables change where anything goes."""

    def __init__(self, settings: ExportSettings) -> None:
        self._resource = Resource(
            {
                "service.name": settings.service_name,
                "service.version": settings.version,
                "service.instance.id": settings.instance,
            }
        )
        self._scope = InstrumentationScope(_SCOPE, settings.version)
        self._spans = OTLPSpanExporter(
            f"{settings.url}/v1/traces",
            headers=dict(settings.headers),
            timeout=TIMEOUT_S,
            compression=Compression.Gzip,
            session=_session(),
        )
        exporter = OTLPMetricExporter(
            f"{settings.url}/v1/metrics",
            headers=dict(settings.headers),
            timeout=TIMEOUT_S,
            compression=Compression.Gzip,
            session=_session(),
        )
        reader = PeriodicExportingMetricReader(
            exporter, export_interval_millis=settings.interval_s * 1000, export_timeout_millis=TIMEOUT_S * 1000
        )
        self._meters = MeterProvider([reader], self._resource, shutdown_on_exit=False)
        self._instruments = _Instruments(self._meters, settings.version)

    def send_spans(self, spans: Sequence[SpanValues]) -> bool:
        """Send spans; return whether the collector took them."""
        result = self._spans.export([self._readable(span) for span in spans])
        return bool(result is SpanExportResult.SUCCESS)

    def count(self, record: RequestRecord, places: Mapping[str, Place]) -> None:
        """Count a finished request. The counts are sent at intervals."""
        self._instruments.count(record, places)

    def close(self) -> None:
        """Send the last counts and close the connections."""
        self._meters.shutdown(timeout_millis=TIMEOUT_S * 1000)
        self._spans.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: SpanValues) -> ReadableSpan:
        trace_id = int(span.trace_id, 16)
        sampled = TraceFlags(TraceFlags.SAMPLED)
        parent = None
        if span.parent_id:
            remote = span.kind == "server"
            parent = SpanContext(trace_id, int(span.parent_id, 16), remote, sampled)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=sampled),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.started_ns,
            end_time=span.ended_ns,
            instrumentation_scope=self._scope,
        )


class _Instruments:
    """The counters and histograms of requests and of their upstream calls."""

    def __init__(self, meters: MeterProvider, version: str) -> None:
        meter = meters.get_meter(_SCOPE, version)
        self._models: set[str] = set()

        def seconds(name: str, description: str) -> object:
            return meter.create_histogram(
                name, unit="s", description=description, explicit_bucket_boundaries_advisory=conventions.SECONDS
            )

        self._request = seconds(conventions.REQUEST_DURATION, "From the arrival of a request to the end of its answer")
        self._inference = seconds(conventions.INFERENCE_DURATION, "Duration of an upstream call")
        self._operation = seconds(conventions.OPERATION_DURATION, "Duration of an upstream call for embeddings")
        self._first_chunk = seconds(conventions.FIRST_CHUNK, "From a call to the first content of its stream")
        self._cost = meter.create_counter(conventions.COST, unit="USD", description="Cloud charges")
        tokens = (
            conventions.INPUT_TOKENS,
            conventions.OUTPUT_TOKENS,
            conventions.CACHE_READ_TOKENS,
            conventions.CACHE_WRITE_TOKENS,
            conventions.REASONING_TOKENS,
        )
        self._tokens = {name: meter.create_counter(name, unit="{token}") for name in tokens}

    def count(self, record: RequestRecord, places: Mapping[str, Place]) -> None:
        """Count a request and its calls."""
        outcome: dict[str, Value] = {
            "gen_ai.operation.name": conventions.OPERATIONS[record.facts.endpoint],
            "http.response.status_code": record.status,
            "spillway.decision": record.decided,
            "spillway.backend": record.backend,
        }
        self._request.record(record.total_s, outcome)  # type: ignore[attr-defined]
        for attempt in record.attempts:
            values = call_attributes(record, attempt, places.get(attempt.backend))
            values["gen_ai.request.model"] = self._bounded(attempt.model)
            duration = self._operation if record.facts.endpoint == "embeddings" else self._inference
            duration.record(attempt.ended_s - attempt.started_s, values)  # type: ignore[attr-defined]
            if attempt.first_event_s is not None:
                self._first_chunk.record(attempt.first_event_s - attempt.started_s, values)  # type: ignore[attr-defined]
            usage = attempt.outcome.usage
            if usage is not None:
                counts = (
                    usage.prompt_tokens,
                    usage.completion_tokens,
                    usage.cached_tokens,
                    usage.cache_write_tokens,
                    usage.reasoning_tokens,
                )
                for counter, count in zip(self._tokens.values(), counts, strict=True):
                    if count:
                        counter.add(count, values)
            if attempt.charge_nano:
                self._cost.add(attempt.charge_nano / NANO, {**values, "spillway.decision": record.decided})

    def _bounded(self, model: str) -> str:
        if model not in self._models:
            if len(self._models) >= _MOST_MODELS:
                return _OTHER
            self._models.add(model)
        return model


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # the collector is the one in the configuration
    return session
