"""One more whole answer to a request that has its answer, for an audit or a shadow: in the background, never shown."""

from __future__ import annotations

from typing import Any

from spillway_router.core.routing.model import Candidate, DecisionKind, Outcome, RequestFacts
from spillway_router.ledger.holds import AttemptReason
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.attempt import (
    AttemptNumbers,
    FetchedAnswer,
    NotOpened,
    UpstreamAttempt,
    fetch_whole,
    open_attempt,
)
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.taking_back import known_refusals
from spillway_router.proxy.exchange.upstream_body import prepare
from spillway_router.proxy.request import body as wire
from spillway_router.proxy.request.large_body import read_body, spans_of


async def open_again(
    services: Services,
    config: ActiveConfig,
    facts: RequestFacts,
    candidate: Candidate,
    kind: DecisionKind,
    attempt_no: int,
) -> UpstreamAttempt | NotOpened:
    """Open an attempt for a request whose client has its answer already. `attempt_no` is the attempt's own number."""
    attempt = await open_attempt(
        services,
        config,
        facts,
        candidate,
        route=config.route_to(candidate.backend),
        reason=AttemptReason(kind, (kind,)),
        numbers=AttemptNumbers(attempt_no - 1),
        request_started_s=services.clock(),
    )
    if isinstance(attempt, UpstreamAttempt):
        attempt.answers = False
    return attempt


async def ask_again(
    config: ActiveConfig, facts: RequestFacts, raw: bytes, body: dict[str, Any], attempt: UpstreamAttempt
) -> FetchedAnswer:
    """Return the whole answer to a body (its bytes and their JSON). Whoever opened the attempt closes it."""
    spans = spans_of(body)
    raw = wire.edit(raw, body.keys(), {"stream": False}, frozenset({"stream_options"}), spans)
    if spans is None:
        whole: dict[str, Any] = {**body, "stream": False}
        whole.pop("stream_options", None)
    else:
        whole = await read_body(raw, key_id=facts.caller.key_id)
    left_out = known_refusals(attempt.services, facts, attempt.backend)
    upstream = prepare(facts, raw, whole, attempt.route, left_out=left_out)
    limits = config.limits
    return await fetch_whole(attempt, facts.endpoint, upstream.body, limits.answer_s, limits.answer_bytes)


INTERRUPTED = Outcome("cancelled", billed=True, detail="the router stopped")
"""How an attempt ends whose worker is stopped."""
