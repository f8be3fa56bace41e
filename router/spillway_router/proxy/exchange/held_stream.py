"""A streamed local answer that is held back until it is known to be sure enough (decisions/0012).

    begin    as every stream: until the first content; a failure is an Outcome and the next candidate may be asked
    hold     the first k tokens are read and scored while the client sees nothing; JSON documents and tool calls are
             read to their end, as one wrong value makes them wrong
    verdict  low: the next tier up is asked while this stream waits, unread, as the draft; the first content of the
             better answer ends it. Else, or if no better answer comes, what was held goes out and the rest follows
    after    never taken back; if it turns out unsure in the end, its last event and the request's record say so

Nothing of two models is ever mixed: what was held of a draft is dropped with it. When the promised time to first token
has passed, the 200 and comments keep the connection alive; no model's bytes are among them.
"""

from __future__ import annotations

from spillway_router.core.routing.backlog import predict
from spillway_router.core.routing.model import Outcome
from spillway_router.http_client.pool import Response
from spillway_router.proxy.client.heartbeat import Heartbeat
from spillway_router.proxy.exchange.attempt import UpstreamAttempt, UpstreamBody
from spillway_router.proxy.exchange.relay import Extension, Relay
from spillway_router.proxy.exchange.self_check import second_look
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.exchange.streamed_answer import StreamAnswer
from spillway_router.proxy.scoring.scoring import ScoredMonitor, is_document

MOST_HELD_TOKENS = 64
"""Of an automatic hold: what more of them would add to the verdict is not worth the wait."""


def tokens_to_hold(slack_s: float, step_s: float) -> int:
    """As many tokens as the engine makes while the promised time to first token still lasts; 1 to MOST_HELD_TOKENS.

    `slack_s`: seconds left of it when the first token is there; `step_s`: seconds per token.
    """
    return max(1, min(MOST_HELD_TOKENS, 1 + int(slack_s / step_s))) if slack_s > 0 else 1


class HeldStream(StreamAnswer):
    """See the module docstring, and `Answer` in exchange.py."""

    __slots__ = ("_heard", "_judged_whole")

    def __init__(self, job: ExchangeState, call: UpstreamAttempt, upstream: UpstreamBody) -> None:
        super().__init__(job, call, upstream)
        self._heard = ScoredMonitor(job.facts.choices, strip=upstream.logprobs_added)
        self._judged_whole = False

    def _relaying(self, response: Response, stall_s: float, *, done_follows: bool) -> Relay:
        self._judge = self._heard
        relay = Relay(response, self._heard, stall_s, done_follows=done_follows)
        relay.strip = self._heard.stripped
        return relay

    async def fetch(self, head: bytes) -> Outcome:
        """Ask, and wait for as much as the verdict needs."""
        job, call, heard = self._job, self._call, self._heard
        found = await super().fetch(head)
        if found.kind != "ok":
            return found
        if job.escalates() and job.live.scoring.hold_tokens != 0:
            failed = await self._hold()
            if failed is not None:
                return failed
        if job.live.scoring.hold_tokens == 0:
            return found  # not to be held, so there is nothing to decide; its confidence is told at its end
        if heard.finished:
            flaw = await self._relay.finish()
            if flaw is not None:
                return Outcome("failed", 200, flaw, billed=True)
            verdict = heard.verdict(job.body, job.yardstick(call))
            if job.live.scoring.self_check is not None:
                verdict = await second_look(job, call, verdict, heard.text(), Outcome("ok", 200, usage=heard.usage))
            call.confidence = None if verdict is None else verdict.confidence
            job.verdict = verdict
            self._judged_whole = True
        else:
            call.confidence = heard.confidence(job.calibration(call))
        job.confidence = call.confidence
        return found

    async def _hold(self) -> Outcome | None:
        """Read on until the verdict can be given: None, or why the answer broke."""
        job, heard = self._job, self._heard
        slo_s = job.facts.hints.slo_ttft_s or job.live.policy.slo.ttft_s
        slack_s = job.asked.started + slo_s - job.s.clock()
        job.start_heartbeat(Heartbeat(job.s.loop, job.client, [*job.client.own, *job.lines(None)], slack_s))
        if is_document(job.body):
            return await self._relay.hold(lambda: False)
        tokens = self._tokens(slack_s)
        return await self._relay.hold(lambda: not heard.tools and heard.heard(tokens))

    def _tokens(self, slack_s: float) -> int:
        job = self._job
        if job.live.scoring.hold_tokens is not None:
            return job.live.scoring.hold_tokens
        known = job.s.board.current(job.s.clock()).backends[self._call.channel.backend.name]
        if known.backlog is None or known.rates is None:
            return tokens_to_hold(slack_s, job.live.policy.slo.tpot_s)
        return tokens_to_hold(slack_s, predict(known.backlog, known.rates, 0, 0).tpot_s)

    async def deliver(self) -> Outcome:
        """Commit to it: what was held, and the rest as it comes."""
        job, heard = self._job, self._heard
        audited = job.audited()
        heard.release_held(keep_text=audited)
        outcome = await super().deliver()
        if outcome.kind == "ok" and audited:
            job.audit(heard.text())
        return outcome

    def close(self) -> None:
        """Stop it. Of a draft that was dropped, what came is what it is charged for."""
        if self._response is not None and self._call.seen is None and self._heard.started:
            self._call.seen = self._relay.seen(self._heard.usage if self._heard.finished else None)
        super().close()

    def _extension(self) -> Extension | None:
        """What is known of the answer at its end. If it turned out unsure it is said even where no usage event can
        carry it."""
        job, heard = self._job, self._heard
        if not self._judged_whole:
            job.confidence = heard.confidence(job.calibration(self._call))
        unsure = job.confidence is not None and job.confidence < job.least_confidence()
        if unsure and "confidence" not in job.reasons:
            job.reasons = (*job.reasons, "confidence")
        if job.confidence is None and not job.client.waiting:
            return None
        word = job.trailing_event(heard.frame)
        return word if unsure or job.client.waiting else Extension(word.member, b"")
