"""The record of a request: what /v1/requests/{id} shows and what the hooks get."""

from __future__ import annotations

from spillway_router.core.routing.model import RequestRecord
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import ExchangeState


def build_record(state: ExchangeState) -> RequestRecord:
    """What has become of the request so far."""
    services = state.services
    return RequestRecord(
        facts=state.facts,
        decision=state.decision,
        attempts=tuple([attempt.record for attempt in state.attempts if attempt.record is not None]),
        status=state.status,
        code=state.code,
        backend=state.backend,
        decided=_decided(state),
        reasons=state.reasons,
        wall_s=services.wall(),
        total_s=services.clock() - state.started_s,
        overhead_s=state.overhead_s(),
        cost_nano=state.cost_nano(),
        confidence=state.confidence,
        cache_hit=state.cache_hit,
        trace=state.trace,
    )


def _decided(state: ExchangeState) -> str:
    """Return the kind of the decision. Whatever was decided, nothing came of it where nobody was asked."""
    refused = state.status >= 400 and state.code != "client_left" and not state.attempts
    return "refused" if refused else state.decided


def publish(services: Services, record: RequestRecord) -> None:
    """Keep the record in memory and give it to the hooks."""
    services.records.add(record)
    for hook in services.hooks:
        hook(record)
