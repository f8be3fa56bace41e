"""The spans of a finished request: one of the request, and one below it for each upstream call. Never any content.

What a span holds comes from the record of the request (`RequestRecord`), which has none of its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spillway_router.core.money.tariff import NANO, Usage
from spillway_router.core.routing.model import Attempt, RequestRecord
from spillway_router.core.trace_context import TraceContext
from spillway_router.telemetry.conventions import OPERATIONS, PROVIDERS, ROUTES

Value = str | bool | int | float | tuple[str, ...]
_LONGEST_NAME = 128
"""Characters of a model's name: the one of a request is the client's text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a backend is: its provider in the catalogue, and its host and port; "" and 0 for a socket file."""

    provider: str
    host: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class SpanValues:
    """One span. Its times are epoch nanoseconds, its ids hex digits; `parent_id` and `error` may be empty."""

    name: str
    kind: Literal["server", "client"]
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Value]
    error: str = ""


def spans_of(record: RequestRecord, places: Mapping[str, Place]) -> tuple[SpanValues, ...]:
    """Return the spans of a request, its own first; none if it is not sampled. `places` are those of the backends."""
    trace = record.trace
    if trace is None or not trace.sampled:
        return ()
    started_s = record.wall_s - record.total_s
    own = SpanValues(
        name=_name(record, record.facts.model),
        kind="server",
        trace_id=trace.trace_id,
        span_id=trace.span_id,
        parent_id=trace.parent_id,
        started_ns=_ns(started_s),
        ended_ns=_ns(record.wall_s),
        attributes=_request_attributes(record),
        error=record.code or str(record.status) if record.status >= 500 else "",
    )
    return own, *(_attempt_span(record, attempt, trace, places.get(attempt.backend)) for attempt in record.attempts)


def call_attributes(record: RequestRecord, attempt: Attempt, place: Place | None) -> dict[str, Value]:
    """Return what identifies an upstream call, for its span and for metrics."""
    provider = "" if place is None else place.provider
    values: dict[str, Value] = {
        "gen_ai.operation.name": OPERATIONS[record.facts.endpoint],
        "gen_ai.provider.name": PROVIDERS.get(provider, provider or attempt.backend),
        "gen_ai.request.model": attempt.model[:_LONGEST_NAME],
    }
    if place is not None and place.host:
        values["server.address"] = place.host
        values["server.port"] = place.port
    if error := error_type(attempt):
        values["error.type"] = error
    return values


def error_type(attempt: Attempt) -> str:
    """Return the class of error that a call ended with: its status, else the kind of its outcome; "" if it is well."""
    outcome = attempt.outcome
    return "" if outcome.kind == "ok" else str(outcome.status) if outcome.status >= 400 else outcome.kind


def _attempt_span(record: RequestRecord, attempt: Attempt, trace: TraceContext, place: Place | None) -> SpanValues:
    started_s = record.wall_s - record.total_s
    values = call_attributes(record, attempt, place)
    values["spillway.backend"] = attempt.backend
    values["spillway.attempt"] = attempt.no
    values["spillway.outcome"] = attempt.outcome.kind
    values["spillway.cost_usd"] = attempt.charge_nano / NANO
    if record.facts.stream:
        values["gen_ai.request.stream"] = True
    if attempt.first_event_s is not None:
        values["gen_ai.response.time_to_first_chunk"] = attempt.first_event_s - attempt.started_s
    if attempt.confidence is not None:
        values["spillway.confidence"] = attempt.confidence
    if attempt.discarded:
        values["spillway.discarded"] = True
    if attempt.outcome.usage is not None:
        values["gen_ai.response.model"] = (attempt.outcome.usage.model or attempt.model)[:_LONGEST_NAME]
        values.update(_usage_attributes(attempt.outcome.usage))
    return SpanValues(
        name=_name(record, attempt.model),
        kind="client",
        trace_id=trace.trace_id,
        span_id=trace.attempt_span_id(attempt.no),
        parent_id=trace.span_id,
        started_ns=_ns(started_s + attempt.started_s),
        ended_ns=_ns(started_s + attempt.ended_s),
        attributes=values,
        error=error_type(attempt) if attempt.outcome.kind != "cancelled" else "",
    )


def _request_attributes(record: RequestRecord) -> dict[str, Value]:
    values: dict[str, Value] = {
        "gen_ai.operation.name": OPERATIONS[record.facts.endpoint],
        "gen_ai.request.model": record.facts.model[:_LONGEST_NAME],
        "http.request.method": "POST",
        "http.route": ROUTES[record.facts.endpoint],
        "http.response.status_code": record.status,
        "spillway.request_id": record.facts.request_id,
        "spillway.decision": record.decided,
        "spillway.reasons": record.reasons,
        "spillway.cost_usd": record.cost_nano / NANO,
        "spillway.overhead_s": record.overhead_s,
    }
    if record.facts.stream:
        values["gen_ai.request.stream"] = True
    if record.backend:
        values["spillway.backend"] = record.backend
        values["gen_ai.response.model"] = record.model[:_LONGEST_NAME]
    if record.facts.caller.key_id:
        values["spillway.key_id"] = record.facts.caller.key_id
    if record.facts.experiment:
        values["spillway.experiment"] = record.facts.experiment
    if record.confidence is not None:
        values["spillway.confidence"] = record.confidence
    if record.status >= 400:
        values["error.type"] = record.code or str(record.status)
    return values


def _usage_attributes(usage: Usage) -> dict[str, Value]:
    values: dict[str, Value] = {
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    applicable = {
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    values.update({name: count for name, count in applicable.items() if count})
    return values


def _name(record: RequestRecord, model: str) -> str:
    return f"{OPERATIONS[record.facts.endpoint]} {model[:_LONGEST_NAME]}"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
