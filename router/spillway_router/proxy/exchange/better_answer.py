"""Answering again, one tier up: for who was not satisfied with an answer.

A request that carries `x-spillway-better-than: REQUEST_ID` is such a one; the router needs to remember of the first
only who answered it. `POST /v1/feedback` with `retry: true` sends the same request again by itself, for which it must
have been kept (`retention`).
"""

from __future__ import annotations

import asyncio
import logging

from spillway_router.core.routing.model import Decision, Refusal, RequestFacts, RequestRecord
from spillway_router.core.routing.policy import decide_better
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.feedback import FeedbackRecord
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.services import Services

log = logging.getLogger("spillway.proxy")

BETTER = "x-spillway-better-than"


def known_request(s: Services, facts: RequestFacts, request_id: str) -> RequestRecord | Refusal:
    """The record of an answer of the same caller; an administrator may name anyone's."""
    record = s.records.get(request_id)
    caller = facts.caller
    if record is None or (caller.role != "admin" and record.facts.caller.key_id != caller.key_id):
        told = f"No request {request_id[:80]} is in memory, which holds the latest. Leave {BETTER} out to ask anew."
        return Refusal(404, "request_not_found", told, BETTER)
    return record


def decide_again(s: Services, live: ActiveConfig, facts: RequestFacts, request_id: str) -> Decision:
    """Where the better answer comes from."""
    record = known_request(s, facts, request_id)
    if isinstance(record, Refusal):
        return Decision("escalated", (), ("feedback",), (), live.policy.version, record)
    if not record.facts.privacy.may_leave:  # what was private once stays so, whatever the second request says of itself
        barred = "Private content stays with the local model, so there is no tier above to ask."
        refusal = Refusal(503, "local_only_unavailable", barred, BETTER)
        return Decision("escalated", (), ("feedback", "privacy"), (), live.policy.version, refusal)
    return decide_better(facts, s.signals(live, facts), live.policy, record.backend)


async def note_better(s: Services, facts: RequestFacts, request_id: str) -> None:
    """Write down that a better answer than that of `request_id` was given; without a ledger to write to it is lost."""
    record = s.records.get(request_id)
    if record is None:
        return
    backend = s.live().policy.backends.get(record.backend)
    model = "" if backend is None else backend.model
    key_id, ts = record.facts.caller.key_id, int(s.wall() * 1000)
    kept = FeedbackRecord(request_id, ts, key_id, record.backend, model, better_id=facts.request_id)
    try:
        await asyncio.to_thread(s.feedback.put, kept)
    except LedgerError as error:
        log.warning("a request for a better answer was not kept: %s", error)
