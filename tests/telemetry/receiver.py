"""A collector that records what it gets as OTLP over HTTP, at a real socket."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from spillway_router.testing.threaded_server import threaded_server


@dataclass
class Collector:
    """What was received. `status` is what it answers; set it to 503 for a collector that is in trouble."""

    url: str = ""
    status: int = 200
    raw: list[bytes] = field(default_factory=list)
    """The bodies, unpacked."""
    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[Any] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    """The newest state of each metric, by name."""
    arrived: threading.Event = field(default_factory=threading.Event)
    """Set at each request."""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Record a request that was accepted."""
        self.raw.append(body)
        self.headers.append(headers)
        if path == "/v1/traces":
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(values_of(group.resource.attributes))
                self.spans += [span for scope in group.scope_spans for span in scope.spans]
        else:
            assert path == "/v1/metrics", path
            for group in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics.update({m.name: m for scope in group.scope_metrics for m in scope.metrics})


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if collector.status == 200:
                collector.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            collector.arrived.set()
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Nothing is written."""

    with threaded_server(Handler) as url:
        collector.url = url
        yield collector


def values_of(attributes: Any) -> dict[str, Any]:
    """Return attributes as Python values."""
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
