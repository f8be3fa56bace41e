"""A better answer, one tier up, for a caller who was not satisfied with the first one.

A request with `x-spillway-better-than: REQUEST_ID` asks for one; of the first request the router only has to remember
which backend answered it. `POST /v1/feedback` with `retry: true` sends the first request again by itself, for which it
must have been retained (`retention`).
"""

from __future__ import annotations

import logging

from spillway_router.core.routing.model import Decision, Refusal, RequestFacts, RequestRecord
from spillway_router.core.routing.policy import decide_better
from spillway_router.ledger.calls import CLIENT_LIMIT_S, LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.feedback import FeedbackRecord
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.caller_signals import caller_signals
from spillway_router.proxy.exchange.services import Services

log = logging.getLogger("spillway.proxy")

BETTER_THAN = "x-spillway-better-than"


def _first_answer(services: Services, facts: RequestFacts, request_id: str) -> RequestRecord | Refusal:
    """Return the record of an earlier request of the same caller; an administrator may name anyone's."""
    record = services.records.get(request_id)
    caller = facts.caller
    if record is None or (caller.role != "admin" and record.facts.caller.key_id != caller.key_id):
        message = f"Memory holds only the newest requests, and not {request_id[:80]}. Omit {BETTER_THAN} to ask anew."
        return Refusal(404, "request_not_found", message, BETTER_THAN)
    return record


def decide_better_answer(services: Services, config: ActiveConfig, facts: RequestFacts, request_id: str) -> Decision:
    """Decide which backends may improve on the answer to `request_id`."""
    record = _first_answer(services, facts, request_id)
    if isinstance(record, Refusal):
        return Decision(
            kind="escalated",
            candidates=(),
            reasons=("feedback",),
            removed=(),
            policy=config.policy.version,
            refusal=record,
        )
    if not record.facts.privacy.may_leave:  # private content stays private, whatever the second request says of it
        message = "Private content stays with the local model, so there is no tier above to ask."
        refusal = Refusal(503, "local_only_unavailable", message, BETTER_THAN)
        return Decision(
            kind="escalated",
            candidates=(),
            reasons=("feedback", "privacy"),
            removed=(),
            policy=config.policy.version,
            refusal=refusal,
        )
    return decide_better(facts, caller_signals(services, config, facts), config.policy, record.backend)


async def record_better_answer(services: Services, facts: RequestFacts, request_id: str) -> None:
    """Record that a better answer than that to `request_id` was given; while the ledger is unavailable this is lost."""
    record = services.records.get(request_id)
    if record is None:
        return
    feedback = FeedbackRecord(
        request_id=request_id,
        ts=int(services.wall() * 1000),
        key_id=record.facts.caller.key_id,
        backend=record.backend,
        model=record.model,
        better_id=facts.request_id,
        pressed_by=facts.caller.key_id,
        pressed_tier=facts.caller.tier,
        pressed_user=facts.user_id,
    )
    try:
        await LEDGER_CALLS.run(services.feedback.put, feedback, limit_s=CLIENT_LIMIT_S)
    except LedgerError as error:
        log.warning("A request for a better answer could not be recorded: %s", error)
