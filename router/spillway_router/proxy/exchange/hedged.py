"""A hedge: the second backend that is asked for a stream of which nothing has come (core/routing/hedging.py).

Both legs are attempts with their own number, hold and row, and the same filters have let both be candidates: a private
request has none but engines. Who has the first checked content answers. The other call is cancelled at once; what it
may cost after that is estimated, or read, as for a client that left.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from spillway_router.core.routing.hedging import delay_s
from spillway_router.core.routing.model import Candidate, DecisionKind, Outcome
from spillway_router.ledger.holds import AttemptReason
from spillway_router.proxy.exchange.attempt import NotOpened, UpstreamAttempt, open_attempt
from spillway_router.proxy.exchange.byok import redacted
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.streamed_answer import StreamAnswer
from spillway_router.proxy.exchange.taking_back import known_refusals
from spillway_router.proxy.exchange.upstream_body import prepare
from spillway_router.proxy.scoring.scoring import is_scored

HEDGE = "hedge"
"""The reason token of an answer of the second backend."""
HEDGED = Outcome("cancelled", billed=True, detail="another backend answered first")
"""How the slower leg ends. It blames no backend."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One call of a race, with the answer that is fetched by it."""

    attempt: UpstreamAttempt
    upstream: StreamAnswer


End = Callable[[UpstreamAttempt, StreamAnswer, Outcome], None]
"""Ends an attempt and its upstream."""


def second_candidate(state: ExchangeState, attempt: UpstreamAttempt) -> Candidate | None:
    """Return the backend by which the first attempt of a stream may be hedged now; None without one.

    A stream that names its backend, brings its own key or is being escalated has none.
    """
    rule, services = state.config.hedging, state.services
    if rule is None or not state.facts.stream or len(state.attempts) != 1:
        return None
    if state.decided in ("pinned", "byok", "escalated") or not state.facts.preferences.allow_fallbacks:
        return None
    services.memory.hedges.on_stream(rule)
    for candidate in state.decision.candidates:
        backend = candidate.backend
        if backend.name == attempt.backend.name or (backend.local and services.local_queues.count):
            continue
        if not _both_may_be_paid(state, attempt.candidate, candidate):
            continue
        if is_scored(state.config.policy.confidence, state.facts, backend):  # nobody judges the answer of a hedge
            continue
        if services.board.is_available(backend.name, services.clock(), state.facts.caller.key_id):
            return candidate
    return None


def _both_may_be_paid(state: ExchangeState, first: Candidate, second: Candidate) -> bool:
    """Return whether both legs together keep to what the request may cost; budgets are asked when they are held."""
    limit_nano = state.facts.hints.max_cost_nano
    return limit_nano is None or first.bound_nano + second.bound_nano <= limit_nano


async def fetch_hedged(state: ExchangeState, first: Leg, second: Candidate, end: End) -> tuple[Leg, Outcome]:
    """Return the leg that answers and how its fetch ended, once the other one has ended. The leg that is returned is
    the caller's to end, and so is the first one if this raises."""
    rule = state.config.hedging
    assert rule is not None
    fetching = asyncio.ensure_future(first.upstream.fetch())
    rival: Leg | None = None
    racing: asyncio.Future[Outcome] | None = None
    winner = first
    try:
        after_s = delay_s(rule, first.attempt.candidate, second)
        await asyncio.wait({fetching}, timeout=None if after_s == math.inf else after_s)
        if not fetching.done() and _may_hedge(state, first):
            rival = await _rival(state, first, second)
        if rival is None:
            return first, await fetching
        if fetching.done() and not _may_race(fetching):  # while the money of the second leg was set aside
            _count(state, "lost")
            return first, await fetching
        racing = asyncio.ensure_future(rival.upstream.fetch())
        won = await _first_answer(fetching, racing)
        winner = rival if won is racing else first
        _count(state, "won" if winner is rival else "lost" if not racing.done() or _is_ok(racing) else "failed")
        if winner is rival:
            state.decided, state.reasons = rival.attempt.hold.reason.kind, rival.attempt.hold.reason.reasons
        elif racing.done() and not _is_ok(won):
            state.hedged = (second, redacted(racing.result(), rival.attempt.route))
        return winner, won.result()
    finally:
        tasks = [task for task in (fetching, racing) if task is not None]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # also where the wait itself is cancelled
            if rival is not None:
                loser = first if winner is rival else rival
                lost: asyncio.Future[Outcome] | None = fetching if winner is rival else racing
                loser.attempt.answers = False
                end(loser.attempt, loser.upstream, HEDGED if lost is None else _as_loser(lost))


def _as_loser(task: asyncio.Future[Outcome]) -> Outcome:
    """Return how the leg ends that does not answer: as it failed, or because the other one was faster."""
    if not task.done() or task.cancelled() or task.exception() is not None or task.result().kind == "ok":
        return HEDGED
    return task.result()


async def _first_answer(first: asyncio.Future[Outcome], second: asyncio.Future[Outcome]) -> asyncio.Future[Outcome]:
    """Wait for the first whole start of an answer. If neither backend has one, the first one's failure counts; so it
    does at once if it is the request's own fault."""
    await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
    if first.done():
        if not _may_race(first):
            return first
        await asyncio.wait({second})
    elif not _is_ok(second):
        await asyncio.wait({first})
        return first
    return second if _is_ok(second) else first


def _may_race(first: asyncio.Future[Outcome]) -> bool:
    """Return whether the second backend may still answer, as the first one failed by no fault of the request. Raises
    what the fetch raised."""
    return first.result().kind not in ("ok", "rejected")


def _is_ok(task: asyncio.Future[Outcome]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result().kind == "ok"


def _may_hedge(state: ExchangeState, first: Leg) -> bool:
    if first.attempt.first_event_s is not None or state.client.started:
        return False
    if not state.services.memory.hedges.take():
        _count(state, "no_token")
        return False
    return True


async def _rival(state: ExchangeState, first: Leg, candidate: Candidate) -> Leg | None:
    """Open the second leg; None if a budget, the ledger or an engine has no room for it."""
    kind: DecisionKind = "overflow" if first.attempt.backend.local else "routed"
    if candidate.backend.local:
        kind = "local"
    route, left_out = state.route(candidate), known_refusals(state.services, state.facts, candidate.backend)
    body = prepare(state.facts, state.client.body, state.body, route, 0, left_out)
    attempt = await open_attempt(
        state.services,
        state.config,
        state.facts,
        candidate,
        route=route,
        reason=AttemptReason(kind, (*state.reasons, HEDGE)),
        numbers=state.numbers,
        request_started_s=state.started_s,
    )
    if isinstance(attempt, NotOpened):
        _count(state, "refused")
        return None
    attempt.passed_headers = state.headers_for(attempt)
    attempt.tracked.replaceable = True
    state.attempts.append(attempt)
    return Leg(attempt, StreamAnswer(state, attempt, body, None))


def _count(state: ExchangeState, result: str) -> None:
    state.services.memory.hedges.counts[result] += 1  # type: ignore[index]  # it is a HedgeResult
