"""One request, from its first byte to its ledger row. Read this module from top to bottom.

1. authenticate            find the caller, on the head alone
2. read                    parse the body once: its bytes stay as they are, routing gets facts
3. decide                  by the policy as its rules make it (ruling.py): which backends, in which order, and why;
                           a stored answer takes the place of steps 4 to 6 (cached_answers.py)
4. for each candidate      hold its money and ask it; the next one only while the client has seen nothing
5. answer                  fetch as much as must be seen before the client may see it (whole_answer.py,
                           streamed_answer.py); escalate an unsure local answer, or deliver it
6. settle                  close the attempt: board, budgets and ledger learn its outcome; the client's last byte waits
                           for its row to be on disk
7. remember                make the record for /v1/requests/{id}, call the hooks, offer it to a shadow (shadowed.py)
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from spillway_router.aio.unexpected import UNEXPECTED
from spillway_router.core.frozen import fast_frozen
from spillway_router.core.routing import retry_budget
from spillway_router.core.routing.affinity import preferred_engine
from spillway_router.core.routing.fair_queue import ENGINE_WAIT_SHARE
from spillway_router.core.routing.filters import cost_bound_nano
from spillway_router.core.routing.leaving import MAY_NOT_LEAVE
from spillway_router.core.routing.model import Caller, Candidate, Decision, Outcome, Refusal, RequestFacts
from spillway_router.core.routing.policy import (
    decide,
    decide_byok,
    decide_escalation,
    longest_wait_s,
    prefer_backend,
    priced_backend,
    unconstrained_locals,
)
from spillway_router.ledger.holds import AttemptReason
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute
from spillway_router.proxy.exchange.allowance import (
    NO_ALLOWANCE,
    most_tokens,
    settle_allowance,
    take_allowance,
)
from spillway_router.proxy.exchange.attempt import NOT_SENT, AttemptNumbers, NotOpened, UpstreamAttempt, open_attempt
from spillway_router.proxy.exchange.better_answer import BETTER_THAN, decide_better_answer, record_better_answer
from spillway_router.proxy.exchange.byok import byok_route, redacted
from spillway_router.proxy.exchange.cached_answers import answered_from_cache
from spillway_router.proxy.exchange.caller_signals import caller_signals, with_gain_prices
from spillway_router.proxy.exchange.escalation import is_step, should_escalate
from spillway_router.proxy.exchange.hedged import HEDGED, Leg, fetch_hedged, second_candidate
from spillway_router.proxy.exchange.held_stream import HeldStream
from spillway_router.proxy.exchange.idempotency import answer_once
from spillway_router.proxy.exchange.last_moment import density_of, leave_by_s, waits_first
from spillway_router.proxy.exchange.local_queue import GateEntry
from spillway_router.proxy.exchange.outcomes import PRIVATE, failure_refusal, final_refusal
from spillway_router.proxy.exchange.presentation import response_headers
from spillway_router.proxy.exchange.record import build_record, publish
from spillway_router.proxy.exchange.ruling import in_arm, under_rules, with_traits
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.shadowed import keep_stream, offer_shadow
from spillway_router.proxy.exchange.state import DecidedRequest, ExchangeState
from spillway_router.proxy.exchange.stored_context import remember_response, with_maker
from spillway_router.proxy.exchange.streamed_answer import StreamAnswer
from spillway_router.proxy.exchange.taking_back import known_refusals, may_take_back, shape_of, unbounded_outcome
from spillway_router.proxy.exchange.unread import UnreadAnswer
from spillway_router.proxy.exchange.upstream_body import prepare
from spillway_router.proxy.exchange.whole_answer import WholeAnswer
from spillway_router.proxy.memory.idempotency import HEADER as IDEMPOTENCY_KEY
from spillway_router.proxy.memory.refused_additions import NOTHING, Addition
from spillway_router.proxy.memory.sessions import SessionId, session_of
from spillway_router.proxy.request import body as wire
from spillway_router.proxy.request.auth import INFERENCE_ROLES
from spillway_router.proxy.request.errors import RefusedError
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.request.large_body import MANY_PARTS, SEARCHED_AT_ONCE, in_thread, read_body
from spillway_router.proxy.scoring.scoring import is_scored

QUEUE_FULL = Refusal(503, "overloaded", "The local queue is full. Retry after the given time.", retry_after_s=1.0)
CLIENT_LEFT = Outcome("cancelled", billed=True, detail="the client left")
RETURN_S = 3.0
"""How long a request waits for another engine where its own went away: as long as a breaker stays open."""
RETURN_CHECK_S = 0.1
BETTER_LATE = "no better answer within the promised time"
ROUTER_FAILED = Outcome("cancelled", billed=True, detail="an unexpected error in the router")
"""It blames no backend: the breaker ignores it."""
INTERNAL_ERROR = Refusal(500, "internal_error", "An unexpected error happened in the router; its log has the details.")


@fast_frozen(frozen=True, slots=True)
class Admitted:
    """A request that may send its body: its caller, the configuration it runs under, its arrival (monotonic)."""

    config: ActiveConfig
    caller: Caller
    started_s: float


def admit(services: Services, headers: Mapping[str, str], in_flight: int, host: str) -> Admitted | Refusal:
    """Step 1. It looks at the head alone, so that nobody without a key makes the router keep a body. `host` is the
    peer's address."""
    config, now_s = services.config(), services.clock()
    if in_flight >= config.limits.in_flight:
        return Refusal(503, "overloaded", "Too many requests in progress here.", retry_after_s=1.0)
    caller = config.auth.permitted(headers, now_s, host, INFERENCE_ROLES)
    if isinstance(caller, Refusal):
        return caller
    refusal = wire.head_flaw(headers, config.limits.body_bytes)
    return Admitted(config, caller, now_s) if refusal is None else refusal


async def serve(services: Services, admitted: Admitted, client: Client) -> None:
    """Answer one inference request whose body has arrived. The task is cancelled when the client leaves."""
    if IDEMPOTENCY_KEY in client.headers:
        await answer_once(services, admitted.caller.key_id, client, lambda: answer(services, admitted, client))
    else:
        await answer(services, admitted, client)


async def answer(services: Services, admitted: Admitted, client: Client) -> None:
    """Steps 2 to 7, for a request that was not answered before."""
    request_read = await read(services, admitted, client)  # 2
    if isinstance(request_read, Refusal):
        client.refuse(request_read)
        return
    admitted, facts, body = request_read
    config = admitted.config
    session = session_of(facts)
    plan = decide_for(services, admitted, client, facts, session)  # 3
    if isinstance(plan, Refusal):
        client.refuse(plan)
        return
    decision, own_route = plan
    allowance = NO_ALLOWANCE
    if (decision.candidates or config.cache is not None) and (
        services.credits.are_counted or facts.caller.rules is not None
    ):
        pressed = BETTER_THAN in client.headers
        taken = await take_allowance(services, facts, most_tokens(facts, decision), better=pressed)
        if isinstance(taken, Refusal):
            client.refuse(taken)
            return
        allowance = taken
    if services.memory.retained.enabled and facts.privacy.may_leave and own_route is None:
        services.memory.retained.add(facts, client.headers, client.body, admitted.started_s)
    request = DecidedRequest(facts, body, decision, started_s=admitted.started_s, byok_route=own_route)
    state = ExchangeState(services, config, client, request=request, numbers=AttemptNumbers())
    try:
        if config.cache is None or not await answered_from_cache(state):
            keep_stream(state)
            await run(state)  # 4, 5, 6
    except asyncio.CancelledError:
        if not client.disconnected:
            raise
        state.status, state.code = 499, "client_left"
    except Exception as unexpected:
        UNEXPECTED.note("request", unexpected, "unexpected error in request %s", facts.request_id)
        if client.fail(INTERNAL_ERROR):
            state.status, state.code = INTERNAL_ERROR.status, INTERNAL_ERROR.code
    finally:
        state.replace_heartbeat(None)
        record = build_record(state)  # 7
        settle_allowance(services, allowance, record)
        publish(services, record)
    offer_shadow(state)
    if state.response_id:  # of a stream that broke off
        await remember_response(state)
    if state.status == 200 and session is not None and _answered_locally(state):
        services.memory.sessions.answered(session, state.backend, admitted.started_s)
    if state.status == 200 and BETTER_THAN in client.headers:
        await record_better_answer(services, facts, client.headers[BETTER_THAN])


async def read(
    services: Services, admitted: Admitted, client: Client
) -> tuple[Admitted, RequestFacts, dict[str, Any]] | Refusal:
    """Step 2: the facts and the body of a request, and what it runs under: the configuration as its rules make it."""
    config = admitted.config
    try:
        if len(client.body) <= SEARCHED_AT_ONCE and config.privacy.recognizer is None:
            body = wire.load(client.body)
        else:
            rule, key_id = config.privacy, admitted.caller.key_id
            body = await read_body(client.body, rule.detectors, rule.recognizer, key_id=key_id)
        request_id, endpoint, headers = client.request_id, client.endpoint, client.headers
        if len(client.body) <= MANY_PARTS:
            facts = read_facts(request_id, endpoint, headers, body, admitted.caller, config.privacy)
        else:
            caller, rule = admitted.caller, config.privacy
            facts = await in_thread(caller.key_id, read_facts, request_id, endpoint, headers, body, caller, rule)
    except RefusedError as error:
        return error.refusal
    if facts.hints.session_id:
        facts = await services.memory.sessions.joined(facts)
    if facts.endpoint == "responses":
        followed = await with_maker(services, facts, body)
        if isinstance(followed, Refusal):
            return followed
        facts = followed
    if config.traits is not None:
        if len(client.body) <= MANY_PARTS:
            facts = with_traits(config, facts, body)
        else:
            facts = await in_thread(admitted.caller.key_id, with_traits, config, facts, body)
        facts = services.memory.sessions.rises(facts, admitted.started_s)
    config = under_rules(services, config, facts)
    if config is not admitted.config:
        admitted, facts = replace(admitted, config=config), in_arm(config, facts)
    return admitted, facts, body


def decide_for(
    services: Services, admitted: Admitted, client: Client, facts: RequestFacts, session: SessionId | None
) -> tuple[Decision, BackendRoute | None] | Refusal:
    """Step 3: the decision, and the route for the caller's own key. Nearly every request takes the last branch."""
    config, headers = admitted.config, client.headers
    if "x-spillway-provider" in headers:
        route = byok_route(services, headers, facts, config)
        if isinstance(route, Refusal):
            return route
        signals = caller_signals(services, config, facts)
        return decide_byok(facts, route.backend, signals, config.policy), route
    if BETTER_THAN in headers:
        return decide_better_answer(services, config, facts, headers[BETTER_THAN]), None
    decision = decide(facts, caller_signals(services, config, facts), config.policy)
    if session is not None:
        last_engine = services.memory.sessions.backend(session, admitted.started_s)
        engine = last_engine or preferred_engine(session, unconstrained_locals(decision))
        decision = prefer_backend(decision, engine)
    return decision, None


async def run(state: ExchangeState) -> None:
    """Step 4: ask the candidates one after the other, while the client has seen nothing."""
    outcome = await _ask_in_turn(state)
    if outcome is not None and outcome.fault == PRIVATE and await _keep_local(state):
        outcome = await _ask_in_turn(state)
    if outcome is not None and outcome.kind == "failed" and await _another_engine(state, outcome):
        outcome = await _ask_in_turn(state)
    if outcome is not None and (outcome.kind in ("ok", "cancelled") or state.client.started):
        return
    refusal = final_refusal(state.refusal, state.decision)
    if refusal.status == 402:
        _note_full_budgets(state)
    state.status, state.code = refusal.status, refusal.code
    state.client.refuse(refusal, response_headers(state, state.attempts[-1] if state.attempts else None))


async def _ask_in_turn(state: ExchangeState) -> Outcome | None:
    """Ask the candidates, and the last one once more where that may help. Return the last outcome, None if no attempt
    was opened."""
    failed: Candidate | None = None
    outcome: Outcome | None = None
    candidates = state.decision.candidates
    first = None if state.config.leaves_by_price is None else waits_first(state)
    if first is not None:
        candidates = (first, *candidates)  # it is asked again in its own place if its turn does not come before
    for number, candidate in enumerate(candidates, 1):
        if candidate is first and number > 1 and state.attempts_at(first):
            continue
        if failed is not None and not (_is_available(state, candidate) and _may_pay(state, candidate)):
            continue
        if _may_have_failed(state) and await _is_hopeless(state, candidate):
            continue
        if state.hedged is not None and state.hedged[0] is candidate:
            latest: Outcome | None = state.hedged[1]  # it was asked beside the one before
        else:
            latest = await ask(state, candidate, replaceable=number < len(candidates))
        if latest is None:
            continue
        failed, outcome = candidate, latest
        if _is_over(state, candidate, latest):
            break
    if failed is not None and outcome is not None and await _may_ask_again(state, failed, outcome):
        latest = await ask(state, failed)
        if latest is not None:
            outcome = latest
            _is_over(state, failed, latest)
    return outcome


async def _keep_local(state: ExchangeState) -> bool:
    """Decide anew on a request that turned out to be private when it was about to leave. Return whether a local backend
    may be asked that was not asked before."""
    asked = any(attempt.backend.local for attempt in state.attempts)
    if state.byok_route is not None or state.answer_judge is not None or BETTER_THAN in state.client.headers:
        return False
    services = state.services
    facts = await services.memory.sessions.joined(replace(state.facts, privacy=state.attempts[-1].privacy))
    config = under_rules(services, services.config(), facts)
    decision = decide(facts, caller_signals(services, config, facts), config.policy)
    state.facts, state.config, state.decision = facts, config, decision
    state.decided, state.reasons = decision.kind, decision.reasons
    return bool(decision.candidates) and not asked


async def _another_engine(state: ExchangeState, outcome: Outcome) -> bool:
    """Decide anew on a request that only local engines may answer and whose engine went away while it waited: others
    may be back by then, as in an upgrade of one engine after the other. Return whether one may be asked that was not.

    One that is away is waited for `RETURN_S` at most, and not beyond the promised time to first token.
    """
    engine_left = outcome.left_rotation or not outcome.status
    if not engine_left or state.client.started or any(not one.backend.local for one in state.decision.candidates):
        return False
    if state.byok_route is not None or state.answer_judge is not None or BETTER_THAN in state.client.headers:
        return False
    services, facts = state.services, state.facts
    asked = {attempt.backend.name for attempt in state.attempts}
    promised_s = facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
    left_s = min(RETURN_S, promised_s - (services.clock() - state.started_s))
    for _ in range(1 + max(0, int(left_s / RETURN_CHECK_S))):
        config = under_rules(services, services.config(), facts)
        decision = decide(facts, caller_signals(services, config, facts), config.policy)
        others = tuple([one for one in decision.candidates if one.backend.local and one.backend.name not in asked])
        if others:
            state.config, state.decision = config, replace(decision, candidates=others)
            return True
        if not any(removed.reason == "health" and removed.backend not in asked for removed in decision.removed):
            return False
        await asyncio.sleep(RETURN_CHECK_S)
    return False


def _note_full_budgets(state: ExchangeState) -> None:
    """Note which budgets had no room for the request at the backends that were removed for that reason."""
    for removed in state.decision.removed:
        backend = priced_backend(removed.backend, state.facts, state.config.policy)
        if removed.reason == "budget" and backend is not None:
            state.services.accounts.refused(state.facts, backend, cost_bound_nano(state.facts, backend))


def _is_over(state: ExchangeState, candidate: Candidate, outcome: Outcome) -> bool:
    """Return whether nobody else is to be asked: the client has its answer, or the request itself is at fault.

    The client's error in case nobody answers is noted.
    """
    if outcome.kind in ("ok", "cancelled") or state.client.started:
        return True
    one_fault = outcome.kind == "failed" and _is_available(state, candidate)
    state.refusal = failure_refusal(candidate, outcome, final=not one_fault)
    return not retry_budget.may_try_next(outcome)


def _may_have_failed(state: ExchangeState) -> bool:
    """Return whether a body of this length failed lately: any other need not be hashed."""
    failing = state.services.memory.failing_bodies
    return not failing.is_empty and failing.may_hold(len(state.client.body))


async def _is_hopeless(state: ExchangeState, candidate: Candidate) -> bool:
    """Return whether this very body failed there again and again while others succeeded; the refusal is noted."""
    services, name, body_id = state.services, candidate.backend.name, await state.body_id()
    last_ok_at, now_s = services.board.last_ok_at(name), services.clock()
    if not services.memory.failing_bodies.is_hopeless(name, body_id, last_ok_at, now_s):
        return False
    message = f"{name} failed on this same request again and again while it answered others. Change the request."
    state.refusal, state.skipped = Refusal(502, "upstream_error", message), "capability"
    return True


def _is_available(state: ExchangeState, candidate: Candidate) -> bool:
    """Return whether the candidate may still be asked: other requests may have learned otherwise since the decision."""
    services = state.services
    return services.board.is_available(candidate.backend.name, services.clock(), state.facts.caller.key_id)


def _may_pay(state: ExchangeState, candidate: Candidate) -> bool:
    """Return whether the candidate may be asked, even if this request has paid for calls that brought nothing."""
    backend = candidate.backend
    if backend.tariff is None or backend.tariff.free:
        return True
    lost = sum([1 for attempt in state.attempts if attempt.paid_for_nothing()])
    if not lost:
        return True
    services = state.services
    promised_s = state.facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
    elapsed_s, silent = services.clock() - state.started_s, services.board.is_silent(backend.name)
    if retry_budget.may_pay_again(lost, elapsed_s, promised_s, silent=silent):
        return True
    if "hung" not in state.reasons:
        state.reasons = (*state.reasons, "hung")
    return False


async def _may_ask_again(state: ExchangeState, candidate: Candidate, outcome: Outcome) -> bool:
    """Wait until the last candidate may be asked once more, because nothing else is left; False if it may not.

    The pause must fit into what the latency promise leaves, and the backend's retry budget must allow it.
    """
    services, backend = state.services, candidate.backend
    if outcome.kind in ("ok", "cancelled") or state.client.started:
        return False
    pause_s = retry_budget.pause_before_retry_s(outcome, random.random(), local=backend.local)  # noqa: S311 - a pause
    if pause_s is None:
        return False
    promised_s = state.facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
    if services.clock() - state.started_s + pause_s > promised_s:
        return False
    if outcome.kind == "failed" and not outcome.retry_after_s and not _is_available(state, candidate):
        return False  # its breaker has opened: nobody asks it now
    if not services.board.may_retry(backend.name, services.clock()):
        return False
    await asyncio.sleep(pause_s)
    return _is_available(state, candidate)


async def ask(
    state: ExchangeState, candidate: Candidate, *, replaceable: bool = False, due_s: float = math.inf
) -> Outcome | None:
    """Ask one candidate; None, with the refusal noted, if no attempt could be opened.

    `replaceable`: another candidate or a draft may take its place. `due_s`: when its answer must have begun, in
    monotonic seconds.
    A paid call whose kept connection turned out to be closed may have been worked on. It is repeated once, as an
    attempt with a hold of its own.
    """
    services = state.services
    if candidate.backend.local and (
        services.local_queues.count > 0
        or candidate.wait_s > ENGINE_WAIT_SHARE * state.config.policy.slo.ttft_s
        or (candidate.reasons and state.config.leaves_by_price is not None)
    ):
        turn = await _turn_of(state, candidate)
        if turn is None:
            return None
        candidate = turn
    outcome: Outcome | None = None
    failing, name = services.memory.failing_bodies, candidate.backend.name
    for _ in range(2):
        _name_decision(state, candidate)
        failed_before = await state.body_id() if _may_have_failed(state) else None
        attempt = await open_attempt(
            services,
            state.config,
            state.facts,
            candidate,
            route=state.route(candidate),
            reason=AttemptReason(state.decided, state.reasons),  # type: ignore[arg-type]  # it is a DecisionKind
            numbers=state.numbers,
            request_started_s=state.started_s,
        )
        if services.local_queues.count:
            services.local_queues.go_on(candidate.backend.name)
        if isinstance(attempt, NotOpened):
            if attempt.code != "backlog":
                state.reasons = (*state.reasons, attempt.code)
            state.refusal = attempt.refusal()
            break
        attempt.passed_headers = state.headers_for(attempt)
        attempt.due_s = due_s
        attempt.tracked.replaceable = replaceable
        if failed_before is not None:
            attempt.tracked.failed_before_at = failing.failed_before_at(name, failed_before, attempt.sent_s)
        state.attempts.append(attempt)
        outcome = await carry_out(state, attempt)
        answered_by = state.backend if state.client.started else name  # a hedge may have answered
        if outcome.kind == "failed" and outcome.status:
            failing.note(answered_by, await state.body_id(), services.clock())
        elif outcome.kind == "ok" and _may_have_failed(state):
            failing.succeeded(answered_by, await state.body_id())
        if not outcome.stale_connection:
            break
    return outcome


async def _turn_of(state: ExchangeState, candidate: Candidate) -> Candidate | None:
    """Wait for the turn at a local engine that is busy; None, with the refusal noted, if it does not come in time."""
    slo_ttft_s = state.facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
    until_s, at_gate = state.started_s + longest_wait_s(candidate, slo_ttft_s), None
    if state.config.leaves_by_price is not None:
        leave_s, first_by_s, density = leave_by_s(state), math.inf, density_of(state, candidate)
        if leave_s <= state.services.clock():
            density = MAY_NOT_LEAVE  # the clouds had their time, and none has taken it
        elif leave_s < until_s:
            until_s, first_by_s = leave_s, state.started_s + slo_ttft_s
        at_gate = GateEntry(density, first_by_s, needs_kv=state.facts.endpoint != "embeddings")
    turn = await state.services.local_queues.enter(candidate, state.facts.caller, until_s, at_gate)
    if turn is None:
        state.refusal, state.skipped = QUEUE_FULL, "queue"
    return turn


def _name_decision(state: ExchangeState, candidate: Candidate) -> None:
    """Name the decision after what happens: another candidate than the first may be asked now."""
    first = state.decision.candidates[0].backend
    if state.decided == "escalated" or first.name == candidate.backend.name:
        if state.decided == "local" and not first.local:  # a local one was asked before it, and failed
            state.decided = state.decision.kind
        return
    if candidate.backend.local:
        state.decided = "local"
        return
    ended = [attempt for attempt in state.attempts if attempt.record is not None]
    tokens = dict.fromkeys([_reason_to_move_on(attempt) for attempt in ended])
    # Where a local backend was asked, the decision says what became of that one.
    decisive = [attempt for attempt in ended if attempt.backend.local] or ended
    if not ended and first.local:
        tokens[state.skipped or "queue"] = None  # its backlog was at its bound, unless something else was wrong
    if state.decided not in ("overflow", "fallback"):
        if any(_reason_to_move_on(attempt) in _DOWN for attempt in decisive):
            state.decided = "fallback"
        elif (decisive[0].backend if decisive else first).local:
            state.decided = "overflow"
        else:
            state.decided = state.decision.kind
    state.reasons = (*state.reasons, *[token for token in tokens if token not in state.reasons])


_DOWN = ("health", "rate_limit")


def _reason_to_move_on(attempt: UpstreamAttempt) -> str:
    """Return the reason token for asking another backend after this attempt; `health` if the backend is at fault."""
    assert attempt.record is not None
    outcome = attempt.record.outcome
    if outcome.kind in ("overloaded", "rate_limited"):
        # The limit of a local engine says that the GPU is full, that of a cloud is the provider's affair.
        return "queue" if attempt.backend.local else "rate_limit"
    if outcome.kind != "unserved":
        return "health"
    if outcome.fault == "context":
        return "context"
    return "endpoint" if outcome.fault in ("", "endpoint") else "capability"


class UpstreamAnswer(Protocol):
    """The answer of one upstream on its way to the client: a `WholeAnswer` or a `StreamAnswer`."""

    async def fetch(self) -> Outcome:
        """Ask, and read as much as must be seen before the client may see anything. Ok: it may be delivered."""

    def refused_addition(self, outcome: Outcome) -> Addition | None:
        """Return what only the router added and the backend refused; None if it refused something else."""

    async def deliver(self) -> Outcome:
        """Send it to the client, to its end, once its ledger row is on disk."""

    def close(self) -> None:
        """Stop what is under way. Harmless when repeated."""

    def unread(self) -> UnreadAnswer | None:
        """Return what is still to come, if anything of it matters when the client has left."""


async def carry_out(state: ExchangeState, attempt: UpstreamAttempt) -> Outcome:
    """Steps 5 and 6: carry out one attempt. Whatever happens, it is closed once.

    A call that was refused because of something that only the router added is sent again without it, once for each such
    thing and within the same hold: no provider bills a refusal.
    """
    upstream: UpstreamAnswer | None = None
    outcome = NOT_SENT
    try:
        left_out = known_refusals(state.services, state.facts, attempt.backend)
        upstream = _upstream_answer(state, attempt, left_out)
        outcome = CLIENT_LEFT  # until something else is known
        second = None if state.config.hedging is None else second_candidate(state, attempt)
        if second is not None and isinstance(upstream, StreamAnswer):
            leg, began = await fetch_hedged(state, Leg(attempt, upstream), second, _end)
            attempt, upstream = leg.attempt, leg.upstream
        else:
            began = await upstream.fetch()
        fetched = redacted(began, attempt.route)
        lasting: frozenset[Addition] = NOTHING
        while (addition := upstream.refused_addition(fetched)) is not None:
            if not may_take_back(state.services, state.facts, attempt.backend, addition, fetched.fault):
                fetched = unbounded_outcome(fetched, addition, attempt.backend)
                break
            left_out |= {addition}
            if fetched.fault != "context":
                lasting |= {addition}
            upstream.close()
            upstream = _upstream_answer(state, attempt, left_out)
            fetched = redacted(await upstream.fetch(), attempt.route)
        if lasting and fetched.kind == "ok":
            _remember_refusals(state, attempt, lasting)
        if fetched.kind == "timeout" and attempt.is_overdue():
            fetched, attempt.answers = replace(fetched, kind="cancelled", detail=BETTER_LATE), False
        deliverable = fetched.kind == "ok"
        if deliverable and should_escalate(state, attempt.backend, attempt.confidence):
            deliverable = not await escalate(state, attempt, upstream, fetched)
        outcome = redacted(await upstream.deliver(), attempt.route) if deliverable else fetched
    except Exception:
        outcome = ROUTER_FAILED
        raise
    finally:
        _end(attempt, upstream, outcome)
    return outcome


def _end(attempt: UpstreamAttempt, upstream: UpstreamAnswer | None, outcome: Outcome) -> None:
    """End an attempt and its upstream. If the client left an answer that its provider completes and bills all the same,
    it is read to its usage in the background, and ends then."""
    nobody_waits = outcome.kind == "cancelled" and outcome in (CLIENT_LEFT, HEDGED)
    if upstream is not None:
        if nobody_waits and attempt.record is None and attempt.outlives_client:
            unread = upstream.unread()
            if unread is not None and attempt.services.drains.take(attempt, unread, outcome):
                return
        upstream.close()
    if nobody_waits and not attempt.was_sent:
        outcome = NOT_SENT
    attempt.close(outcome)


def _remember_refusals(state: ExchangeState, attempt: UpstreamAttempt, additions: frozenset[Addition]) -> None:
    services = state.services
    shape = shape_of(state.facts, attempt.backend.name)
    for addition in sorted(additions):
        services.memory.refused_additions.remember(shape, addition, services.clock())


def _upstream_answer(state: ExchangeState, attempt: UpstreamAttempt, left_out: frozenset[Addition]) -> UpstreamAnswer:
    """Return the answer that is to be fetched. It is not scored if the backend has no log-probabilities."""
    config, backend = state.config, attempt.backend
    scored = is_scored(config.policy.confidence, state.facts, backend, escalated=is_step(state, backend))
    if scored:
        scored = "logprobs" not in left_out and "logprobs" not in state.services.board.lacking(backend.name)
    top_logprobs = config.scoring.top_logprobs if scored else 0
    body = prepare(state.facts, state.client.body, state.body, attempt.route, top_logprobs, left_out)
    if left_out:
        attempt.left_out = tuple(sorted(left_out))
    if not state.facts.stream:
        return WholeAnswer(state, attempt, body, scored=scored)
    return StreamAnswer(state, attempt, body, HeldStream(state, attempt, body) if scored else None)


async def escalate(
    state: ExchangeState, draft: UpstreamAttempt, draft_answer: UpstreamAnswer, outcome: Outcome
) -> bool:
    """Ask the next step if that is worth its cost. True if the client got its answer; else the draft stands.

    The draft is a local answer, or that of a step which was not sure either: all steps of a request share the time of
    the first one, and one that is expected to be late is not paid for.
    """
    config, facts, services = state.config, state.facts, state.services
    if config.rules.read_confidence and draft.backend.local:
        config = state.config = under_rules(services, services.config(), facts, draft.confidence)
    signals = with_gain_prices(services, config, facts, caller_signals(services, config, facts))
    decision = decide_escalation(facts, signals, config.policy, draft.expected_gain(outcome), draft.backend.name)
    decided, reasons = state.decided, state.reasons
    draft.hold_as_draft(outcome, draft_answer.close)
    due_s = min(draft.due_s, _better_due_s(state, draft.streamed, outcome))
    for candidate in decision.candidates:
        if services.clock() + (0.0 if draft.backend.local else candidate.ttft_s) >= due_s:
            due_s = services.clock()
            break
        state.decided, state.reasons = "escalated", ("confidence",)
        better = await ask(state, candidate, replaceable=True, due_s=due_s)
        if better is not None and (better.kind == "ok" or state.client.started):
            return True
    draft.accept_draft()
    no_budget = ("budget",) if not decision.candidates and "budget" in decision.reasons else ()
    late = ("late",) if services.clock() + 0.01 >= due_s else ()
    state.decided, state.reasons = decided, tuple(dict.fromkeys((*reasons, "confidence", *no_budget, *late)))
    return False


def _better_due_s(state: ExchangeState, streamed: bool, draft: Outcome) -> float:
    """Return when a better answer must have begun (monotonic): within the promised time to first token from now.

    One that comes all at once gets the promised time for as many tokens as the draft has besides.
    """
    slo = state.config.policy.slo
    promised_s = state.facts.hints.slo_ttft_s or slo.ttft_s
    if not streamed and draft.usage is not None:
        promised_s += draft.usage.completion_tokens * slo.tpot_s
    return state.services.clock() + promised_s


def _answered_locally(state: ExchangeState) -> bool:
    route = state.config.backend_routes.get(state.backend)
    return route is not None and route.backend.local and state.cache_hit is None
