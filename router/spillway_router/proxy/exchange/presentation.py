"""What a client is told about its request: the response headers of an answer, and a stream's last event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from spillway_router.core.routing.policy import has_better
from spillway_router.proxy.client.replies import Lines
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.byok import redactor_of
from spillway_router.proxy.exchange.passed_headers import passed_to_client
from spillway_router.proxy.exchange.relay import Extension
from spillway_router.proxy.exchange.state import ExchangeState


def response_headers(state: ExchangeState, attempt: UpstreamAttempt | None) -> Lines:
    """Header lines with what was decided and done; `attempt` is the one whose answer the client gets."""
    headers: Lines = []
    if attempt is not None:
        headers.append(attempt.route.naming_headers)
        headers.append(b"x-spillway-decision: %b\r\n" % state.decided.encode())
        if attempt.upstream_headers is not None:
            headers.extend(passed_to_client(attempt.upstream_headers, redactor_of(attempt.route)))
    if state.reasons:
        headers.append(b"x-spillway-reason: %b\r\n" % ",".join(state.reasons).encode())
    if attempt is not None and _has_better(state):
        headers.append(b"x-spillway-better: available\r\n")
    overhead_ms = state.overhead_s() * 1000
    attempts = len(state.attempts)
    headers.append(b"x-spillway-attempts: %d\r\nx-spillway-overhead-ms: %.2f\r\n" % (attempts, overhead_ms))
    if state.cache_note:
        headers.append(b"x-spillway-cache: %b\r\n" % state.cache_note.encode())
    if state.confidence is not None:
        headers.append(b"x-spillway-confidence: %.4f\r\n" % state.confidence)
    return headers


def headers_of_waiting(state: ExchangeState) -> Lines:
    """Header lines of a 200 that is sent before it is known which backend answers."""
    return [*state.client.base_headers, *response_headers(state, None)]


def summary(state: ExchangeState) -> dict[str, Any]:
    """The same as JSON values, for a stream whose headers went out before they were known."""
    members: dict[str, Any] = {
        "decision": state.decided,
        "reasons": state.reasons,
        "backend": state.backend,
        "model": state.model(),
    }
    if state.confidence is not None:
        members["confidence"] = round(state.confidence, 4)
    if _has_better(state):
        members["better"] = "available"
    return members


def _has_better(state: ExchangeState) -> bool:
    """Return whether the client may ask for a better answer than that of the backend that answers."""
    policy = state.config.policy
    return (
        bool(policy.confidence.escalate_to)
        and state.byok_route is None
        and state.backend != ""
        and has_better(state.facts, policy, state.backend)
    )


def trailing_event(state: ExchangeState, frame: Mapping[str, Any] | None = None) -> Extension:
    """The summary for the end of a stream; `frame` holds the members that name the answer in each of its events."""
    member = summary(state)
    event = {**(frame or {"object": "chat.completion.chunk"}), "choices": [], "spillway": member}
    return Extension(member, b"data: " + orjson.dumps(event) + b"\n\n")
