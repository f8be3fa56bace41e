"""A whole answer: fetched, judged, and delivered once its row is on disk."""

from __future__ import annotations

from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Outcome
from spillway_router.providers.logprobs import answer_text
from spillway_router.proxy.client.replies import JSON
from spillway_router.proxy.exchange.active_config import DrainLimits, Pace
from spillway_router.proxy.exchange.attempt import FetchedAnswer, UpstreamAttempt, fetch_whole, judged
from spillway_router.proxy.exchange.cached_answers import store_whole
from spillway_router.proxy.exchange.embedding_calls import WantedVectors, fetch_embeddings, is_split
from spillway_router.proxy.exchange.escalation import criteria, draw_audit, offer_audit
from spillway_router.proxy.exchange.presentation import response_headers
from spillway_router.proxy.exchange.refereeing import can_be_refereed, confidence_by_referee
from spillway_router.proxy.exchange.self_check import verdict_with_self_check
from spillway_router.proxy.exchange.shadowed import is_compared
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.stored_context import remember_response
from spillway_router.proxy.exchange.upstream_body import UpstreamBody, with_cost, without_logprobs
from spillway_router.proxy.memory.refused_additions import Addition
from spillway_router.proxy.scoring.scoring import answer_verdict


def whole_within_s(state: ExchangeState) -> float:
    """Return the seconds that a whole answer may take: as long as the first content of a stream, and the promised time
    for each token that the request allows; `limits.answer_s` where it allows any number."""
    limits, max_tokens = state.config.limits, state.facts.max_tokens
    if max_tokens is None and state.facts.endpoint != "embeddings":
        return limits.answer_s
    return min(limits.answer_s, limits.first_event_s + (max_tokens or 0) * state.config.policy.slo.tpot_s)


class WholeAnswer:
    """An `UpstreamAnswer` that is no stream. `scored`: its confidence is to be known before it is delivered."""

    __slots__ = ("_attempt", "_reply", "_scored", "_state", "_upstream")

    _reply: FetchedAnswer

    def __init__(self, state: ExchangeState, attempt: UpstreamAttempt, upstream: UpstreamBody, *, scored: bool) -> None:
        self._state, self._attempt, self._upstream = state, attempt, upstream
        self._scored = scored

    async def fetch(self) -> Outcome:
        """Ask for the answer and judge all of it."""
        attempt, limits = self._attempt, self._state.config.limits
        attempt.expect_first_token()
        within_s = attempt.patience_s(whole_within_s(self._state))
        endpoint, body = self._state.facts.endpoint, self._upstream.body
        if endpoint == "embeddings":
            wanted = WantedVectors.of(self._state.body)
            reply = await fetch_embeddings(attempt, body, wanted, within_s, limits.answer_bytes)
        else:
            reply = await fetch_whole(attempt, endpoint, body, within_s, limits.answer_bytes)
        self._reply = reply
        attempt.on_response_headers(reply.headers)
        if reply.outcome.kind == "ok":
            attempt.on_whole_answer(reply.outcome)
        if reply.outcome.kind == "ok" and self._scored:
            await self._judge(reply)
        if reply.outcome.kind == "ok" and attempt.confidence is None and can_be_refereed(self._state, attempt):
            confidence = await confidence_by_referee(self._state, attempt, reply.answer)
            attempt.confidence = self._state.confidence = confidence
        return reply.outcome

    async def _judge(self, reply: FetchedAnswer) -> None:
        state, attempt = self._state, self._attempt
        verdict = answer_verdict(reply.answer, state.body, criteria(state, attempt))
        if state.config.scoring.self_check is not None and attempt.backend.local:
            text = answer_text(reply.answer["choices"][0])
            verdict = await verdict_with_self_check(state, attempt, verdict, text, reply.outcome)
        state.verdict = verdict
        attempt.confidence = state.confidence = None if verdict is None else verdict.confidence
        by_rule = state.config.policy.ruling.sets_confidence
        if not by_rule and attempt.backend.local and state.services.audits.is_probe(state.config, attempt.confidence):
            state.probe = answer_text(reply.answer["choices"][0])

    def refused_addition(self, outcome: Outcome) -> Addition | None:
        """Return what only the router added and the backend refused; None if it refused something else."""
        return self._upstream.refused_addition(outcome)

    async def deliver(self) -> Outcome:
        """Send the answer once every row of the request is on disk."""
        state, attempt, reply = self._state, self._attempt, self._reply
        discarded = False
        if state.answer_judge is not None:
            judgement = state.answer_judge(reply.answer)
            attempt.confidence = state.confidence = judgement.confidence
            discarded = not judgement.used
        attempt.close(reply.outcome, discarded=discarded)
        state.commit(attempt)
        if state.facts.endpoint == "responses":
            state.response_id = str(reply.answer.get("id") or "")
            await remember_response(state)
        body = without_logprobs(reply.answer, reply.body) if self._upstream.logprobs_added else reply.body
        if state.cache_place is not None:
            store_whole(state, attempt, reply.outcome.usage, body)
        body = self._with_cost(reply, body)
        await state.durable()
        cost = b"x-spillway-cost-usd: %b\r\n" % usd(state.cost_nano()).encode()
        state.client.reply(200, [JSON, *state.client.base_headers, *response_headers(state, attempt), cost], body)
        self._audit(reply)
        if is_compared(state):
            state.answer_text = answer_text(reply.answer["choices"][0])
        return reply.outcome

    def _with_cost(self, reply: FetchedAnswer, body: bytes) -> bytes:
        """The answer with its cost, if the client asked for it."""
        if self._state.cost_requested and isinstance(reply.answer.get("usage"), dict):
            return with_cost(body, reply.answer, float(usd(self._state.cost_nano())))
        return body

    def _audit(self, reply: FetchedAnswer) -> None:
        state = self._state
        if state.probe is not None and not self._attempt.backend.local:
            better = answer_text(reply.answer["choices"][0])
            state.services.audits.observe_probe(state.config, state.probe, better)
        elif self._scored and draw_audit(state, self._attempt.backend):
            offer_audit(state, answer_text(reply.answer["choices"][0]))

    def close(self) -> None:
        """Close the connection of a call whose reader was cancelled; nothing else is left open."""
        attempt = self._attempt
        if attempt.is_left_open:
            attempt.route.pool.drop_left_open(attempt.pending)

    def unread(self) -> UnreadWhole | None:
        """Return what is still to come, if anything of it matters when the client has left.

        The rest of one call says nothing of the others of a request that was split: that is estimated.
        """
        if is_split(self._attempt):
            return None
        limit_bytes = self._state.config.limits.answer_bytes
        return UnreadWhole(self._attempt, limit_bytes) if self._attempt.is_left_open else None


class UnreadWhole:
    """An `UnreadAnswer`: a whole answer that has not come, or not all of it."""

    __slots__ = ("_attempt", "_limit_bytes")

    def __init__(self, attempt: UpstreamAttempt, limit_bytes: int) -> None:
        self._attempt, self._limit_bytes = attempt, limit_bytes

    async def read(self, limits: DrainLimits, pace: Pace) -> Outcome:
        """Read it for its usage. Raises TransportError."""
        attempt = self._attempt
        most_bytes = min(limits.most_bytes, limits.held_bytes, self._limit_bytes)
        reply = await attempt.route.pool.rest_of_call(attempt.pending, limits.within_s, most_bytes)
        await pace(len(reply.body))
        return (await judged(attempt, attempt.hold.facts.endpoint, reply)).outcome

    def close(self) -> None:
        """Close the connection if nobody read on."""
        self._attempt.route.pool.drop_left_open(self._attempt.pending)
