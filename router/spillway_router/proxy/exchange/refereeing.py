"""Asks the referee about an answer that came without log-probabilities (core/confidence/referee.py).

Off by default. Only whole answers that the client has not seen are judged so, and only where a better one could replace
them. The referee passes the filters of the request: privacy, the rules of the key, budgets, health. Its call is an
attempt of its own, with the decision `referee`, a hold and a charge. If anything goes wrong with
it, or its reply is no number, the answer stands as it would without a referee.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from spillway_router.core.confidence.referee import SELF, Referee
from spillway_router.core.confidence.self_check import SHORTEST_S
from spillway_router.core.routing.model import Candidate, Outcome, RequestFacts
from spillway_router.core.routing.policy import referee_candidate
from spillway_router.ledger.holds import AttemptReason
from spillway_router.providers.logprobs import answer_text
from spillway_router.proxy.exchange.attempt import NotOpened, UpstreamAttempt, fetch_whole, open_attempt
from spillway_router.proxy.exchange.caller_signals import caller_signals
from spillway_router.proxy.exchange.escalation import is_step, may_escalate
from spillway_router.proxy.exchange.self_check import question_about, stated_in
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.upstream_body import prepare
from spillway_router.proxy.request.items import request_items
from spillway_router.proxy.request.large_body import cut_strings

REASON = "referee"
MOST_BYTES = 256 * 1024
_NOTHING_TO_LEARN = Outcome("cancelled", detail="a referee")
"""The outcome for the board: a few tokens say nothing of a backend's speed or of the length of its answers."""


def can_be_refereed(state: ExchangeState, attempt: UpstreamAttempt) -> bool:
    """Return whether what a referee says of this answer could change anything."""
    if state.config.scoring.referee is None or state.answer_judge is not None:
        return False
    # A body whose long strings were cut can't be sent again.
    if state.facts.endpoint != "chat" or state.facts.choices != 1 or cut_strings(state.body):
        return False
    if not may_escalate(state):
        return False
    if attempt.backend.local:
        return True
    rule = state.config.policy.confidence
    return is_step(state, attempt.backend) and rule.step_threshold(attempt.backend.name) is not None


async def confidence_by_referee(
    state: ExchangeState, attempt: UpstreamAttempt, answer: Mapping[str, Any]
) -> float | None:
    """Return what the referee says of a whole answer, in [0, 1]; None if it says nothing, or can't be asked."""
    rule, text = state.config.scoring.referee, answer_text(answer["choices"][0])
    if rule is None or not text.strip():
        return None
    within_s = min(rule.longest_s, attempt.due_s - state.services.clock())
    if within_s < SHORTEST_S:
        return None
    body = question_body(state.body, text, rule)
    facts = _facts(state.facts, body, rule)
    name = attempt.backend.name if rule.backend == SELF else rule.backend
    signals = caller_signals(state.services, state.config, facts)
    candidate = referee_candidate(facts, signals, state.config.policy, name)
    if candidate is None:
        return None
    return await _ask(state, replace(candidate, reasons=(REASON,)), facts, body, within_s)


def question_body(body: Mapping[str, Any], answer: str, rule: Referee) -> dict[str, Any]:
    """Return the chat request that asks about `answer`, which was given to `body`."""
    return question_about(body, answer, rule.question, max_tokens=rule.max_tokens) | {"model": rule.backend}


def _facts(facts: RequestFacts, body: Mapping[str, Any], rule: Referee) -> RequestFacts:
    """Return the facts of the question. It is as private as the request, and its caller's."""
    return replace(
        facts,
        stream=False,
        prompt_bytes=facts.prompt_bytes + len(orjson.dumps(body["messages"][-2:])),
        max_tokens=rule.max_tokens,
        needs=facts.needs & {"vision"},
        billed_choices=1,
        items=request_items("chat", body),
        task=facts.work,
    )


async def _ask(
    state: ExchangeState, candidate: Candidate, facts: RequestFacts, body: dict[str, Any], within_s: float
) -> float | None:
    """Return the score, or None. The attempt is closed and its row on its way to the ledger when this returns."""
    attempt = await open_attempt(
        state.services,
        state.config,
        facts,
        candidate,
        route=state.route(candidate),
        reason=AttemptReason("referee", (REASON,)),
        numbers=state.numbers,
        request_started_s=state.started_s,
    )
    if isinstance(attempt, NotOpened):
        return None
    state.attempts.append(attempt)
    attempt.answers = False
    outcome, score = Outcome("cancelled", billed=True, detail="the client left"), None
    try:
        upstream = prepare(facts, orjson.dumps(body), body, attempt.route)
        async with asyncio.timeout(within_s):
            reply = await fetch_whole(attempt, "chat", upstream.body, within_s, MOST_BYTES)
        outcome = reply.outcome
        if outcome.kind == "ok":
            score = stated_in(reply.answer["choices"][0])
    except TimeoutError:
        outcome = Outcome("timeout", detail=f"no word of the referee within {within_s * 1000:.0f} ms", billed=True)
    finally:
        if outcome.kind in ("ok", "cancelled", "timeout"):
            state.services.board.ended(attempt.tracked, _NOTHING_TO_LEARN, state.services.clock(), streamed=False)
        attempt.close(outcome, discarded=outcome.kind == "ok")
    if attempt.record is not None:
        attempt.record = replace(attempt.record, confidence=score)
    return score
