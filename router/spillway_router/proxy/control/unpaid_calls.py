"""Calls to backends that cost nothing and make no attempt: counting tokens, reading and deleting stored responses."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.routing.model import Outcome, Refusal
from spillway_router.http_client.connection import PendingCall, TransportError
from spillway_router.http_client.types import Reply
from spillway_router.proxy.exchange.active_config import BackendRoute
from spillway_router.proxy.exchange.byok import redacted
from spillway_router.proxy.exchange.outcomes import OWN_STATUSES, transport_outcome
from spillway_router.proxy.exchange.passed_headers import PassedHeaders
from spillway_router.proxy.exchange.services import Services

WITHIN_S = 20.0
"""Longest wait for an answer, and between two parts of it."""
MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class UnpaidCall:
    """A call to make: the path and query below the base URL, whether what it sends is private, and the client's headers
    that go with it."""

    method: str
    path: str
    private: bool
    body: bytes = b""
    headers: PassedHeaders = ()


async def call_unpaid(services: Services, route: BackendRoute, call: UnpaidCall) -> Reply | Outcome:
    """Return the backend's answer with status 200, or how the call ended instead. Raises nothing of the transport."""
    passed = [(name, line) for name, line in call.headers if name not in route.own_headers]
    try:
        head = route.pool.uncached_head(
            call.method,
            call.path,
            len(call.body),
            private=call.private,
            extra=route.credentials + b"".join([line for _, line in passed]),
            replaced=frozenset([name for name, _ in passed]),
        )
        reply = await route.pool.call(head, call.body, WITHIN_S, MOST_BYTES, PendingCall())
    except TransportError as error:
        return transport_outcome(error)
    if reply.status == 200:
        return reply
    return redacted(route.provider.outcome(reply, services.wall()), route)


def refusal_of(backend: str, outcome: Outcome) -> Refusal:
    """Return the client's error after a call that did not succeed."""
    message = f"{backend}: {outcome.said or outcome.detail or outcome.kind}"
    if outcome.status in OWN_STATUSES:
        return Refusal(outcome.status, "invalid_request", message, upstream=outcome.error)
    if outcome.kind == "timeout":
        return Refusal(504, "upstream_timeout", f"The backend did not answer in time. {message}")
    return Refusal(502, "upstream_error", f"The backend failed. {message}", final=False)
