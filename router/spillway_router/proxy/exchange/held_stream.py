"""A streamed answer, of an engine or of a step of escalation, that is held back until it is known to be sure enough
(docs/decisions/0012).

    begin    as for every stream: wait for the first content; on a failure the next candidate may be asked
    hold     read and score the first k tokens while the client sees nothing; JSON documents and tool calls are read to
             their end, as one wrong value makes all of them wrong
    verdict  low: this stream waits, unread, as the draft while the next tier up is asked, and the first content of the
             better answer ends it. Else, or if no better answer comes, what was held goes out and the rest follows
    after    nothing is taken back; if the answer turns out unsure in the end, its last event and the record say so

The answers of two models are never mixed: what was held of a draft is dropped with it. Once the promised time to first
token has passed, the 200 and comments keep the connection alive; they hold no model's bytes.
"""

from __future__ import annotations

from functools import partial

from spillway_router.core.routing.backlog import predict
from spillway_router.core.routing.model import Outcome
from spillway_router.proxy.client.heartbeat import Heartbeat
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.escalation import (
    calibration,
    criteria,
    draw_audit,
    is_step,
    may_escalate,
    offer_audit,
    threshold,
)
from spillway_router.proxy.exchange.presentation import headers_of_waiting, trailing_event
from spillway_router.proxy.exchange.relay import Extension, Relay
from spillway_router.proxy.exchange.self_check import verdict_with_self_check
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.upstream_body import UpstreamBody
from spillway_router.proxy.scoring.scoring import ScoredMonitor, is_document

MOST_HELD_TOKENS = 64
"""Most tokens of an automatic hold: what more of them would add to the verdict is not worth the wait."""


def tokens_to_hold(slack_s: float, step_s: float) -> int:
    """As many tokens as the engine makes within the promised time to first token; 1 to MOST_HELD_TOKENS.

    `slack_s`: seconds left of that time when the first token has come; `step_s`: seconds per token.
    """
    return max(1, min(MOST_HELD_TOKENS, 1 + int(slack_s / step_s))) if slack_s > 0 else 1


class HeldStream:
    """Decides for one `StreamAnswer` how long it is held back, and what its end says of its confidence."""

    __slots__ = ("_attempt", "_audited", "_judged_whole", "_state", "monitor")

    def __init__(self, state: ExchangeState, attempt: UpstreamAttempt, upstream: UpstreamBody) -> None:
        self._state, self._attempt = state, attempt
        dialect = attempt.route.provider.entry.usage
        self.monitor = ScoredMonitor(
            state.facts.choices, dialect, strip=upstream.logprobs_added, count=attempt.output_count()
        )
        self._judged_whole = False
        self._audited = False

    async def judge_held(self, relay: Relay) -> Outcome | None:
        """Read as much as the verdict needs, and set the attempt's confidence. Returns the outcome of a stream that
        broke meanwhile. With `hold_tokens: 0` nothing is held and the confidence is known at the stream's end only."""
        state, attempt = self._state, self._attempt
        if state.config.scoring.hold_tokens == 0:
            return None
        if may_escalate(state):
            failure = await self._hold(relay)
            if failure is not None:
                return failure
        if self.monitor.finished:
            flaw = await relay.finish()
            if flaw is not None:
                return Outcome("failed", 200, relay.detail(flaw), relay.said(flaw), billed=True)
            await self._judge_whole()
        else:
            attempt.confidence = self.monitor.confidence(calibration(state, attempt))
        state.confidence = attempt.confidence
        return None

    async def _hold(self, relay: Relay) -> Outcome | None:
        """Read on until the verdict can be given; returns the outcome of a stream that broke."""
        state, monitor = self._state, self.monitor
        slo_s = state.facts.hints.slo_ttft_s or state.config.policy.slo.ttft_s
        slack_s = state.started_s + slo_s - state.services.clock()
        waiting_headers = partial(headers_of_waiting, state)
        state.replace_heartbeat(Heartbeat(state.services.loop, state.client, waiting_headers, slack_s))
        if is_document(state.body):
            return await relay.hold(lambda: False)
        if is_step(state, self._attempt.backend):  # half of the time that is left is for the next step
            slack_s = (self._attempt.due_s - state.services.clock()) / 2
        tokens = self._tokens_to_hold(min(slack_s, slo_s))
        return await relay.hold(lambda: not monitor.tools and monitor.has_tokens(tokens))

    def _tokens_to_hold(self, slack_s: float) -> int:
        state = self._state
        configured = state.config.scoring.hold_tokens
        if configured is not None:
            return configured
        services = state.services
        signals = services.board.current(services.clock()).backends[self._attempt.backend.name]
        if signals.backlog is None or signals.rates is None:
            return tokens_to_hold(slack_s, state.config.policy.slo.tpot_s)
        return tokens_to_hold(slack_s, predict(signals.backlog, signals.rates, 0, 0).tpot_s)

    async def _judge_whole(self) -> None:
        """Judge an answer that ended while it was held back."""
        state, attempt, monitor = self._state, self._attempt, self.monitor
        verdict = monitor.verdict(state.body, criteria(state, attempt))
        if state.config.scoring.self_check is not None and attempt.backend.local:
            outcome = Outcome("ok", 200, usage=monitor.usage)
            verdict = await verdict_with_self_check(state, attempt, verdict, monitor.text(), outcome)
        attempt.confidence = None if verdict is None else verdict.confidence
        state.verdict = verdict
        self._judged_whole = True

    def release(self) -> None:
        """Let the stream go to the client. Its text is kept if the answer is to be audited."""
        self._audited = draw_audit(self._state, self._attempt.backend)
        self.monitor.release_held(keep_text=self._audited)

    def delivered(self) -> None:
        """Offer the answer to audits if it was drawn: the client has all of it."""
        if self._audited:
            offer_audit(self._state, self.monitor.text())

    def extension(self) -> Extension | None:
        """What the stream's end says of its confidence. An answer that turned out unsure says so even where no usage
        event can carry it."""
        state, monitor = self._state, self.monitor
        if not self._judged_whole:
            state.confidence = monitor.confidence(calibration(state, self._attempt))
        unsure = state.confidence is not None and state.confidence < threshold(state, self._attempt.backend)
        if unsure and "confidence" not in state.reasons:
            state.reasons = (*state.reasons, "confidence")
        if state.confidence is None and not state.client.waiting:
            return None
        extension = trailing_event(state, monitor.frame)
        return extension if unsure or state.client.waiting else Extension(extension.member, b"")
