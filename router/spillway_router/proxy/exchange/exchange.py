"""One request, from its first byte to its ledger row. Read `serve` from top to bottom.

1. authenticate            who asks
2. read                    the body once: bytes kept as they are, facts for routing
3. decide                  which backends, in which order, and why (core/routing/policy.py)
4. for each candidate      hold its money, send, and look at how it went; the next one only while the client has
                           seen nothing
5. answer                  fetch it as far as it must be seen before the client may (whole.py, stream.py); escalate a
                           local one of low confidence, or deliver it
6. settle                  board, budgets and ledger learn every attempt's end; the client's last byte waits for the
                           row to be on disk
7. remember                the record for /v1/requests/{id}, the hooks
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from spillway_router.core.frozen import dataclass
from spillway_router.core.routing import retry_budget
from spillway_router.core.routing.affinity import preferred_engine
from spillway_router.core.routing.model import Caller, Candidate, Decision, Outcome, Refusal, RequestFacts
from spillway_router.core.routing.policy import (
    decide,
    decide_byok,
    decide_escalation,
    prefer_backend,
    unconstrained_locals,
)
from spillway_router.http_client.connection import TransportError
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute
from spillway_router.proxy.exchange.attempt import UpstreamAttempt, prepare
from spillway_router.proxy.exchange.better_answer import BETTER_THAN, decide_better_answer, record_better_answer
from spillway_router.proxy.exchange.byok import own_key_channel, redacted
from spillway_router.proxy.exchange.held_stream import HeldStream
from spillway_router.proxy.exchange.idempotency import answer_once
from spillway_router.proxy.exchange.outcomes import transport_outcome
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import ExchangeState, Question
from spillway_router.proxy.exchange.streamed_answer import StreamAnswer
from spillway_router.proxy.exchange.whole_answer import WholeAnswer
from spillway_router.proxy.memory.idempotency import HEADER as IDEMPOTENCY_KEY
from spillway_router.proxy.memory.sessions import SessionId, session_of
from spillway_router.proxy.request import body as wire
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.scoring.scoring import scores

CLIENT_LEFT = Outcome("cancelled", billed=True, detail="the client left")
NOT_SENT = Outcome("cancelled", detail="it was not sent")
INFERENCE_ROLES = frozenset({"inference", "admin"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may send its body: who asks, under which configuration, since when (monotonic seconds)."""

    live: ActiveConfig
    caller: Caller
    started: float


def admit(s: Services, headers: Mapping[str, str], in_flight: int) -> Admitted | Refusal:
    """Step 1, on the head alone: so that nobody without a key makes the router keep a body."""
    live, now = s.live(), s.clock()
    if in_flight >= live.limits.in_flight:
        return Refusal(503, "overloaded", "Too many requests in progress here.", retry_after_s=1.0)
    caller = live.auth.caller(headers, now)
    if isinstance(caller, Refusal):
        return caller
    refused = live.auth.admit(caller, INFERENCE_ROLES) or wire.head_flaw(headers, live.limits.body_bytes)
    return Admitted(live, caller, now) if refused is None else refused


async def serve(s: Services, admitted: Admitted, client: Client) -> None:
    """Answer one inference request whose body has come. Cancelled when its client leaves."""
    if IDEMPOTENCY_KEY in client.headers:
        await answer_once(s, admitted.caller.key_id, client, lambda: answer(s, admitted, client))
    else:
        await answer(s, admitted, client)


async def answer(s: Services, admitted: Admitted, client: Client) -> None:
    """Steps 2 to 7, for a request that is not answered already."""
    live = admitted.live
    try:
        body = wire.load(client.body)  # 2
        facts = read_facts(client.request_id, client.endpoint, client.headers, body, admitted.caller, live.privacy)
    except RefusedError as error:
        client.refuse(error.refusal)
        return
    s.board.arrived()
    facts = s.memory.sessions.with_privacy(facts, admitted.started)
    session = session_of(facts)
    found = decided(s, admitted, client, facts, session)  # 3
    if isinstance(found, Refusal):
        client.refuse(found)
        return
    decision, own = found
    if s.memory.retained.enabled and facts.privacy.may_leave and own is None:
        s.memory.retained.add(facts, client.headers, client.body, admitted.started)
    job = ExchangeState(s, live, client, Question(facts, body, decision, admitted.started, own))
    try:
        await run(job)  # 4, 5, 6
    except asyncio.CancelledError:
        if not client.disconnected:
            raise
        job.status, job.code = 499, "client_left"
    finally:
        job.remember()  # 7
    if job.status == 200 and session is not None and job.answered_locally():
        s.memory.sessions.answered(session, job.backend, admitted.started)
    if job.status == 200 and BETTER_THAN in client.headers:
        await record_better_answer(s, facts, client.headers[BETTER_THAN])


def decided(
    s: Services, admitted: Admitted, client: Client, facts: RequestFacts, session: SessionId | None
) -> tuple[Decision, BackendRoute | None] | Refusal:
    """Step 3: the decision, and the place that the caller brought along. Nearly every request takes the last way."""
    live, headers = admitted.live, client.headers
    if "x-spillway-provider" in headers:
        own = own_key_channel(s.own_keys, headers, facts, live.policy.aliases)
        if isinstance(own, Refusal):
            return own
        return decide_byok(facts, own.backend, s.signals(live, facts), live.policy.version), own
    if BETTER_THAN in headers:
        return decide_better_answer(s, live, facts, headers[BETTER_THAN]), None
    decision = decide(facts, s.signals(live, facts), live.policy)
    if session is not None:
        known = s.memory.sessions.backend(session, admitted.started)
        decision = prefer_backend(decision, known or preferred_engine(session, unconstrained_locals(decision)))
    return decision, None


async def run(job: ExchangeState) -> None:
    """Step 4: walk the candidates while the client has seen nothing."""
    candidates = job.decision.candidates
    for i, candidate in enumerate(candidates):
        if not job.may_go_on():
            job.refused = Refusal(503, "overloaded", "The retry budget is used up.", retry_after_s=1.0)
            break
        outcome = await ask(job, candidate)
        if outcome is None:
            continue
        if outcome.kind in ("ok", "cancelled") or job.client.started:
            return
        job.note_failure(candidate, outcome)
        if not retry_budget.may_try_next(outcome, len(job.calls), len(candidates) - i - 1):
            break
    job.refuse()


async def ask(job: ExchangeState, candidate: Candidate) -> Outcome | None:
    """One candidate; None: it could not be opened. A paid call whose kept connection turned out to be closed may have
    been worked on, so it is sent again as an attempt with a hold of its own."""
    call = await job.open(candidate)
    if call is None:
        return None
    outcome = await attempt(job, call)
    if outcome.stale_connection and (again := await job.open(candidate)) is not None:
        outcome = await attempt(job, again)
    return outcome


class UpstreamAnswer(Protocol):
    """One upstream's answer on its way: `WholeAnswer` or `StreamAnswer`."""

    async def fetch(self, head: bytes) -> Outcome:
        """As much of it as must be seen before the client may; nothing of it has left when this returns. `ok`: it may
        be delivered. Raises TransportError."""

    async def deliver(self) -> Outcome:
        """To the client, to its end and its ledger row."""

    def close(self) -> None:
        """Stop what is under way; harmless when repeated."""


async def attempt(job: ExchangeState, call: UpstreamAttempt) -> Outcome:
    """Steps 5 and 6 of one upstream call. Whatever happens in it, it is closed once."""
    reply: UpstreamAnswer | None = None
    outcome = NOT_SENT
    try:
        scored = scores(job.live.policy.confidence, job.facts, call.channel.backend)
        top_logprobs = job.live.scoring.top_logprobs if scored else 0
        upstream = prepare(job.facts, job.client.body, job.body, call.channel, top_logprobs)
        path = call.channel.provider.path(job.facts.endpoint)
        head = call.channel.pool.head(path, len(upstream.body), call.label() + call.channel.credentials)
        if not job.facts.stream:
            reply = WholeAnswer(job, call, upstream, scored=scored)
        else:
            reply = HeldStream(job, call, upstream) if scored else StreamAnswer(job, call, upstream)
        outcome = CLIENT_LEFT
        found = redacted(await reply.fetch(head), call.channel)
        if found.kind == "ok":
            if scored and job.doubts(call.confidence) and await escalate(job, call, reply, found):
                outcome = found
                return outcome
            found = redacted(await reply.deliver(), call.channel)
        outcome = found
    except TransportError as error:
        outcome = transport_outcome(error)
    finally:
        if reply is not None:
            reply.close()
        call.close(outcome)
    return outcome


async def escalate(job: ExchangeState, draft: UpstreamAttempt, answer: UpstreamAnswer, outcome: Outcome) -> bool:
    """Ask the next tier up if it is worth its cost; True if the client got its answer. Else the draft stands."""
    signals = job.s.priced(job.live, job.facts, job.s.signals(job.live, job.facts))
    decision = decide_escalation(job.facts, signals, job.live.policy, draft.doubt(outcome))
    before = job.decided, job.reasons
    draft.hold_as_draft(outcome, answer.close)
    for candidate in decision.candidates:
        job.decided, job.reasons = "escalated", ("confidence",)
        ended = await ask(job, candidate)
        if ended is not None and (ended.kind == "ok" or job.client.started):
            return True
    draft.stand()
    spared = ("budget",) if not decision.candidates and "budget" in decision.reasons else ()
    job.decided, job.reasons = before[0], (*before[1], "confidence", *spared)
    return False
