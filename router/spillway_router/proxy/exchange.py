"""One request, from its first byte to its ledger row. Read `serve` from top to bottom.

1. authenticate            who asks
2. read                    the body once: bytes kept as they are, facts for routing
3. decide                  which backends, in which order, and why (core/policy.py)
4. for each candidate      hold its money, send, and look at how it went; the next one only while the client has
                           seen nothing
5. answer                  relay the stream or the whole answer; escalate a whole local answer of low confidence
6. settle                  board, budgets and ledger learn every attempt's end; the client's last byte waits for the
                           row to be on disk
7. remember                the record for /v1/requests/{id}, the hooks
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from spillway_router.core import confidence, failover
from spillway_router.core.limiter import exhausted_for_s
from spillway_router.core.model import (
    Attempt,
    Caller,
    Candidate,
    Decision,
    Outcome,
    Refusal,
    RequestFacts,
    RequestRecord,
)
from spillway_router.core.policy import decide, decide_escalation
from spillway_router.core.tariff import usd
from spillway_router.ledger.accounts import HoldRefused, Why
from spillway_router.providers.base import Reply
from spillway_router.providers.connection import TransportError
from spillway_router.providers.streams import DONE, error_text, load
from spillway_router.proxy import wire
from spillway_router.proxy.attempt import Call, UpstreamCall, prepare, without_logprobs
from spillway_router.proxy.client import Client
from spillway_router.proxy.facts import read_facts
from spillway_router.proxy.outcomes import failure_refusal, transport_outcome
from spillway_router.proxy.relay import Relay, tail_bytes
from spillway_router.proxy.replies import JSON, Lines, error_event
from spillway_router.proxy.services import Live, Services

MAX_ERROR_BYTES = 1024 * 1024
CLIENT_LEFT = Outcome("cancelled", billed=True, detail="the client left")
INFERENCE_ROLES = frozenset({"inference", "admin"})


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may send its body: who asks, under which configuration, since when (monotonic seconds)."""

    live: Live
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
    live = admitted.live
    try:
        body = wire.load(client.body)  # 2
        facts = read_facts(client.request_id, client.endpoint, client.headers, body, admitted.caller, live.privacy)
    except wire.BadRequestError as error:
        client.refuse(error.refusal)
        return
    s.board.arrived(admitted.started)
    decision = decide(facts, s.signals(live, facts), live.policy)  # 3
    job = Job(s, live, client, Asked(facts, body, decision, admitted.started))
    try:
        await job.run()  # 4, 5, 6
    except asyncio.CancelledError:
        if not client.disconnected:
            raise
        job.status, job.code = 499, "client_left"
    finally:
        job.remember()  # 7


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, as facts and as parsed JSON, and what was decided. `started` is monotonic seconds."""

    facts: RequestFacts
    body: dict[str, Any]
    decision: Decision
    started: float


class Job:
    """The state of one request between its decision and its record."""

    __slots__ = (
        "asked", "backend", "body", "calls", "client", "code", "confidence", "cost_asked", "decided", "decision",
        "facts", "live", "reasons", "refused", "s", "status",
    )  # fmt: skip

    def __init__(self, s: Services, live: Live, client: Client, asked: Asked) -> None:
        self.s, self.live, self.client, self.asked = s, live, client, asked
        self.facts, self.body, self.decision = asked.facts, asked.body, asked.decision
        self.cost_asked = client.headers.get("x-spillway-usage-cost", "").lower() == "true"
        self.calls: list[Call] = []
        self.status, self.code = 200, ""
        self.backend = ""
        self.decided = self.decision.kind
        self.reasons = self.decision.reasons
        self.confidence: float | None = None
        self.refused: Refusal | None = self.decision.refusal

    async def run(self) -> None:
        """Step 4: walk the candidates while the client has seen nothing."""
        candidates = self.decision.candidates
        for i, candidate in enumerate(candidates):
            if self.calls and not self._free_retry() and not self.s.board.may_retry():
                self.refused = Refusal(503, "overloaded", "The retry budget is used up.", retry_after_s=1.0)
                break
            call = await self._open(candidate)
            if call is None:
                continue
            outcome = await self._attempt(call)
            if outcome.kind in ("ok", "cancelled") or self.client.started:
                return
            self._note_failure(candidate, outcome)
            if not failover.goes_on(outcome, len(self.calls), len(candidates) - i - 1):
                break
        refusal = self.refused or Refusal(503, "no_backend", "No backend could be asked.", retry_after_s=5.0)
        self._refuse(self._kept_here(refusal))

    def _kept_here(self, refusal: Refusal) -> Refusal:
        """The refusal as it stands for a private request whose local backends failed: others were there, but barred."""
        barred = any(removed.reason == "privacy" for removed in self.decision.removed)
        if refusal.status < 500 or not barred or refusal.code == "local_only_unavailable":
            return refusal
        message = f"No local backend can answer this private request now. {refusal.message}"
        return Refusal(503, "local_only_unavailable", message, retry_after_s=refusal.retry_after_s or 5.0)

    def _free_retry(self) -> bool:
        """An engine whose queue was full did no work: moving on is overflow, not a retry."""
        last = self.calls[-1].record
        return last is not None and last.outcome.kind == "overloaded"

    async def _open(self, candidate: Candidate) -> Call | None:
        """Set the money aside (durably, for a paid backend) and count the work; None: ask the next candidate."""
        s = self.s
        no = len(self.calls) + 1
        channel = self.live.channels[candidate.backend.name]
        self._rename(candidate)
        why = Why(self.decided, self.reasons)
        hold = await s.accounts.hold(self.facts, channel.backend, why, no, candidate.cost_bound_nano)
        if isinstance(hold, HoldRefused):
            self.reasons = (*self.reasons, hold.code)
            status, code = (402, "budget_exceeded") if hold.code == "budget" else (503, "overloaded")
            self.refused = Refusal(status, code, hold.message, retry_after_s=None if status == 402 else 5.0)
            return None
        slo = self.facts.hints.slo_ttft_s or self.live.policy.slo.ttft_s
        trip = s.board.sent(candidate, self.facts.prompt_bytes, slo, s.clock())
        if trip is None:
            s.accounts.release(hold)
            self.refused = Refusal(503, "overloaded", "The local backlog is at its bound.", retry_after_s=1.0)
            return None
        call = Call((s.accounts, s.board, s.clock), channel, candidate, hold, trip, self.asked.started)
        self.calls.append(call)
        return call

    async def _attempt(self, call: Call) -> Outcome:
        """One upstream call. Whatever happens in it, it is closed once."""
        upstream = prepare(self.facts, self.client.body, self.body, call.channel, want_logprobs=self._scores(call))
        pool, path = call.channel.pool, call.channel.provider.path(self.facts.endpoint)
        head = pool.head(path, len(upstream.body))
        outcome = CLIENT_LEFT
        try:
            if self.facts.stream:
                outcome = await self._stream(call, head, upstream)
            else:
                outcome = await self._whole(call, head, upstream)
        except TransportError as error:
            outcome = transport_outcome(error)
        finally:
            call.close(outcome)
        return outcome

    def _scores(self, call: Call) -> bool:
        """Logprobs are asked of a local backend when a low confidence could change anything."""
        rule = self.live.policy.confidence
        wanted = bool(rule.escalate_to) or self.facts.hints.min_confidence is not None
        able = "logprobs" in call.channel.backend.capabilities and not self.facts.stream
        return wanted and able and call.channel.backend.local and self.facts.endpoint in ("chat", "completions")

    # 5. whole answers

    async def _whole(self, call: Call, head: bytes, upstream: UpstreamCall) -> Outcome:
        s, provider = self.s, call.channel.provider
        call.expect_first_token()
        answer = await call.channel.pool.call(
            head, upstream.body, self.live.limits.answer_s, self.live.limits.answer_bytes
        )
        outcome = provider.outcome(answer, s.wall())
        self._learn_limits(call, answer.headers)
        if outcome.kind != "ok":
            return outcome
        parsed = load(answer.body)
        if isinstance(parsed, str):
            return Outcome("failed", answer.status, parsed, billed=True)
        flaw = provider.flaw(self.facts.endpoint, parsed)
        if flaw is not None:
            aborted = call.channel.backend.local and error_text(parsed) is None
            return Outcome("overloaded" if aborted else "failed", answer.status, flaw, billed=not aborted)
        outcome = Outcome("ok", answer.status, usage=provider.usage(parsed))
        body = answer.body
        if self._scores(call):
            call.confidence = self.confidence = confidence.answer_confidence(parsed)
            if upstream.logprobs_added:
                body = without_logprobs(parsed)
            if self._doubtful():
                call.draft = outcome
                if await self._escalate(call):
                    return outcome
                call.draft = None
        call.close(outcome)
        await self._deliver(call, parsed, body)
        return outcome

    def _doubtful(self) -> bool:
        """True if the answer is to be sought one tier up; never for who pinned a backend or forbade fallbacks."""
        if self.decision.kind == "pinned" or not self.facts.preferences.allow_fallbacks:
            return False
        least = self.facts.hints.min_confidence
        if least is None:
            least = self.live.policy.confidence.threshold
        return self.confidence is not None and self.confidence < least

    async def _escalate(self, draft: Call) -> bool:
        """Ask the next tier up if it is worth its cost; True if the client got its answer. Else the draft stands."""
        signals = self.s.priced(self.live, self.facts, self.s.signals(self.live, self.facts))
        decision = decide_escalation(self.facts, signals, self.live.policy, draft.doubt())
        before = self.decided, self.reasons
        for candidate in decision.candidates:
            self.decided, self.reasons = "escalated", ("confidence",)
            call = await self._open(candidate)
            if call is None:
                continue
            outcome = await self._attempt(call)
            if outcome.kind == "ok":
                return True
        spared = ("budget",) if not decision.candidates and "budget" in decision.reasons else ()
        self.decided, self.reasons = before[0], (*before[1], "confidence", *spared)
        return False

    async def _deliver(self, call: Call, parsed: dict[str, Any], body: bytes) -> None:
        """Send a whole answer once its row is on disk."""
        self.backend = call.channel.backend.name
        for draft in self.calls:
            if draft.draft is not None and draft is not call:
                draft.close(draft.draft, discarded=True)
                await draft.durable()
        if self.cost_asked and isinstance(parsed.get("usage"), dict):
            parsed["usage"]["cost"] = float(usd(self._cost()))
            body = orjson.dumps(parsed)
        await call.durable()
        cost = b"x-spillway-cost-usd: %b\r\n" % usd(self._cost()).encode()
        self.client.whole(200, [JSON, *self.client.own, *self._lines(call), cost], body)

    # 5. streams

    async def _stream(self, call: Call, head: bytes, upstream: UpstreamCall) -> Outcome:
        s, limits = self.s, self.live.limits
        call.streamed = True
        response = await call.channel.pool.send(head, upstream.body, limits.first_event_s)
        try:
            self._learn_limits(call, response.headers)
            if response.status != 200:
                text = await response.read_all(MAX_ERROR_BYTES)
                return call.channel.provider.outcome(Reply(response.status, response.headers, text), s.wall())
            judge = call.channel.provider.judge(self.facts.endpoint, self.facts.choices)
            relay = Relay(response, judge, limits.stall_s, done_follows=self.facts.endpoint in ("chat", "completions"))
            response.expect_within(max(0.001, call.sent_at + limits.first_event_s - s.clock()))
            failed = await relay.begin()
            if failed is not None:
                return failed
            call.first_event()
            self.backend = call.channel.backend.name
            self.client.begin_stream([*self.client.own, *self._lines(call)], relay.opening())
            try:
                flaw = await relay.forward_within(self.client, call.seconds_left())
            finally:
                call.steps = relay.steps
            if flaw is not None:
                return await self._interrupted(call, flaw, relay.stalled)
            outcome = Outcome("ok", 200, usage=judge.usage)
            call.close(outcome)
            await call.durable()
            self.client.end_stream(self._tail(relay, upstream))
            return outcome
        finally:
            response.close()

    def _tail(self, relay: Relay, upstream: UpstreamCall) -> bytes:
        openai = self.facts.endpoint in ("chat", "completions")
        wants_cost = upstream.usage_asked or self.cost_asked
        return tail_bytes(
            relay.tail,
            usage_asked=upstream.usage_asked,
            usage_added=upstream.usage_added,
            cost_nano=self._cost() if wants_cost else None,
            closing=b"data: " + DONE + b"\n\n" if openai else b"",
        )

    async def _interrupted(self, call: Call, flaw: str, stalled: bool) -> Outcome:
        """After the first byte there is no way back: one error event, a clean end."""
        outcome = Outcome("timeout" if stalled else "failed", 200, flaw, billed=True)
        self.status, self.code = 502, "upstream_interrupted"
        call.close(outcome)
        await call.durable()
        message = f"The answer broke off at {call.channel.backend.name}: {flaw}. Send the request again."
        self.client.end_stream(error_event("upstream_interrupted", message))
        return outcome

    # shared

    def _learn_limits(self, call: Call, headers: Mapping[str, str]) -> None:
        if not call.channel.backend.local:
            seconds = exhausted_for_s(headers, self.s.wall())
            if seconds:
                self.s.board.limited(call.channel.backend.name, seconds, self.s.clock())

    def _cost(self) -> int:
        return sum(call.cost_nano for call in self.calls)

    def _overhead_s(self) -> float:
        """Time from the request's arrival to its first call."""
        started = self.asked.started
        return self.calls[0].sent_at - started if self.calls else self.s.clock() - started

    def _lines(self, call: Call | None) -> Lines:
        """Header lines that tell what was decided and done."""
        lines: Lines = []
        if call is not None:
            lines.append(call.channel.lines)
            lines.append(b"x-spillway-decision: %b\r\n" % self.decided.encode())
        if self.reasons:
            lines.append(b"x-spillway-reason: %b\r\n" % ",".join(self.reasons).encode())
        overhead_ms = self._overhead_s() * 1000
        lines.append(b"x-spillway-attempts: %d\r\nx-spillway-overhead-ms: %.2f\r\n" % (len(self.calls), overhead_ms))
        if self.confidence is not None:
            lines.append(b"x-spillway-confidence: %.4f\r\n" % self.confidence)
        return lines

    def _rename(self, candidate: Candidate) -> None:
        """Another candidate than the first is about to be asked: the decision's name follows what happened."""
        first = self.decision.candidates[0].backend
        if self.decided == "escalated" or first.name == candidate.backend.name:
            return
        if candidate.backend.local:
            self.decided = "local"
            return
        full = all(c.record is not None and c.record.outcome.kind == "overloaded" for c in self.calls)
        self.decided = "overflow" if full else "fallback"
        token = "queue" if full else "health"
        if token not in self.reasons:
            self.reasons = (*self.reasons, token)

    def _note_failure(self, candidate: Candidate, outcome: Outcome) -> None:
        self.refused = failure_refusal(candidate, outcome)

    def _refuse(self, refusal: Refusal) -> None:
        self.status, self.code = refusal.status, refusal.code
        self.client.refuse(refusal, self._lines(self.calls[-1] if self.calls else None))

    def remember(self) -> None:
        """Step 7."""
        now = self.s.clock()
        attempts: tuple[Attempt, ...] = tuple(c.record for c in self.calls if c.record is not None)
        record = RequestRecord(
            self.facts,
            self.decision,
            attempts,
            self.status,
            self.code,
            self.backend,
            self.decided,
            self.reasons,
            self.s.wall(),
            now - self.asked.started,
            self._overhead_s(),
            self._cost(),
            self.confidence,
        )
        self.s.records.add(record)
        for hook in self.s.hooks:
            hook(record)
