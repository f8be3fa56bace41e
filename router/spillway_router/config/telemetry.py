"""Says what is wrong with the export of spans and metrics, as configured."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from spillway_router.config.load import ConfigProblem
from spillway_router.config.settings import TelemetryPart

_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def telemetry_problems(part: TelemetryPart) -> Iterator[ConfigProblem]:
    """Yield what is wrong with it: the extra that is missing."""
    if part.otlp_url is not None and not all(_is_there(name) for name in _PACKAGES):
        problem = "needs OpenTelemetry's SDK and exporter; install spillway-llm[otel], or leave the setting out"
        yield ConfigProblem("telemetry.otlp_url", 0, problem)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
