"""A whole answer: fetched, judged, delivered once its row is on disk."""

from __future__ import annotations

from typing import Any

import orjson

from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Outcome
from spillway_router.providers.logprobs import answer_text
from spillway_router.providers.streams import MalformedObject, error_text, parse_object
from spillway_router.proxy.client.replies import JSON
from spillway_router.proxy.exchange.attempt import UpstreamAttempt, UpstreamBody, without_logprobs
from spillway_router.proxy.exchange.self_check import second_look
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.scoring.scoring import answer_verdict


class WholeAnswer:
    """See `Answer` in exchange.py."""

    __slots__ = ("_body", "_call", "_job", "_outcome", "_parsed", "_upstream", "scored")

    def __init__(self, job: ExchangeState, call: UpstreamAttempt, upstream: UpstreamBody, *, scored: bool) -> None:
        self._job, self._call, self._upstream = job, call, upstream
        self.scored = scored
        self._parsed: dict[str, Any] = {}
        self._body = b""
        self._outcome = Outcome("ok")

    async def fetch(self, head: bytes) -> Outcome:
        """Ask, and look at the whole of it."""
        job, call = self._job, self._call
        provider, limits = call.channel.provider, job.live.limits
        call.expect_first_token()
        answer = await call.channel.pool.call(head, self._upstream.body, limits.answer_s, limits.answer_bytes)
        outcome = provider.outcome(answer, job.s.wall())
        job.learn_limits(call, answer.headers)
        if outcome.kind != "ok":
            return outcome
        parsed = parse_object(answer.body)
        if isinstance(parsed, MalformedObject):
            return Outcome("failed", answer.status, parsed.flaw, billed=True)
        flaw = provider.flaw(job.facts.endpoint, parsed)
        if flaw is not None:
            aborted = call.channel.backend.local and error_text(parsed) is None
            return Outcome("overloaded" if aborted else "failed", answer.status, flaw, billed=not aborted)
        self._parsed, self._body = parsed, answer.body
        self._outcome = Outcome("ok", answer.status, usage=provider.usage(parsed))
        if self.scored:
            verdict = answer_verdict(parsed, job.body, job.yardstick(call))
            if job.live.scoring.self_check is not None:
                text = answer_text(parsed["choices"][0])
                verdict = await second_look(job, call, verdict, text, self._outcome)
            call.confidence = job.confidence = None if verdict is None else verdict.confidence
            job.verdict = verdict
            if job.s.audits.probes(job.live, call.confidence):
                job.probe = answer_text(parsed["choices"][0])
            if self._upstream.logprobs_added:
                self._body = without_logprobs(parsed)
        return self._outcome

    async def deliver(self) -> Outcome:
        """Send it once every row of the request is on disk."""
        job, parsed, body = self._job, self._parsed, self._body
        judged = job.client.judged(parsed)
        if judged is not None:
            self._call.confidence = job.confidence = judged.confidence
        self._call.close(self._outcome, discarded=judged is not None and not judged.used)
        job.commit(self._call)
        if job.cost_asked and isinstance(parsed.get("usage"), dict):
            parsed["usage"]["cost"] = float(usd(job.cost()))
            body = orjson.dumps(parsed)
        await job.durable()
        cost = b"x-spillway-cost-usd: %b\r\n" % usd(job.cost()).encode()
        job.client.whole(200, [JSON, *job.client.own, *job.lines(self._call), cost], body)
        if job.probe is not None and not self.scored:
            job.s.audits.probed(job.live, job.probe, answer_text(parsed["choices"][0]))
        elif self.scored and job.audited():
            job.audit(answer_text(parsed["choices"][0]))
        return self._outcome

    def close(self) -> None:
        """Nothing is left open."""
