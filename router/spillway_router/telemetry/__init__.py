"""Spans and metrics of requests for OpenTelemetry (extra `otel`)."""
