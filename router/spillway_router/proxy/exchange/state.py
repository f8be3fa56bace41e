"""The state of one request between its decision and its record: its attempts, its names, its cost, its headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from spillway_router.core.confidence.calibration import ANY, Calibration
from spillway_router.core.confidence.judge import ConfidenceVerdict
from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import (
    Attempt,
    Candidate,
    Decision,
    Outcome,
    Refusal,
    RequestFacts,
    RequestRecord,
)
from spillway_router.core.routing.rate_limits import exhausted_for_s
from spillway_router.ledger.holds import AttemptReason, HoldRefused
from spillway_router.proxy.client.client import Client
from spillway_router.proxy.client.heartbeat import Heartbeat
from spillway_router.proxy.client.replies import Lines
from spillway_router.proxy.exchange.active_config import ActiveConfig, BackendRoute
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.audit_sample import AuditSample, ScoredAnswer
from spillway_router.proxy.exchange.outcomes import failure_refusal
from spillway_router.proxy.exchange.relay import Extension
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.scoring.scoring import ConfidenceCriteria, is_document


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, as facts and as parsed JSON, and what was decided. `started` is monotonic seconds."""

    facts: RequestFacts
    body: dict[str, Any]
    decision: Decision
    started: float
    own: BackendRoute | None = None
    """Where a caller's own key leads."""


class ExchangeState:
    """See the module docstring."""

    __slots__ = (
        "asked", "backend", "body", "calls", "client", "code", "confidence", "cost_asked", "decided", "decision",
        "facts", "heartbeat", "live", "probe", "reasons", "refused", "s", "status", "unused",
        "verdict",
    )  # fmt: skip

    def __init__(self, s: Services, live: ActiveConfig, client: Client, asked: Question) -> None:
        self.s, self.live, self.client, self.asked = s, live, client, asked
        self.facts, self.body, self.decision = asked.facts, asked.body, asked.decision
        self.cost_asked = client.headers.get("x-spillway-usage-cost", "").lower() == "true"
        self.calls: list[UpstreamAttempt] = []
        self.unused = 0
        """Attempt numbers whose holds may be in the ledger although no call was made."""
        self.status, self.code = 200, ""
        self.backend = ""
        self.decided: str = self.decision.kind
        self.reasons = self.decision.reasons
        self.confidence: float | None = None
        self.refused: Refusal | None = self.decision.refusal
        self.heartbeat: Heartbeat | None = None
        self.probe: str | None = None
        """A draft's text, to be compared with the better answer."""
        self.verdict: ConfidenceVerdict | None = None
        """On the latest answer that was judged whole: an audit's label needs its scores."""

    # attempts

    async def open(self, candidate: Candidate) -> UpstreamAttempt | None:
        """Set the money aside (durably, for a paid backend) and count the work; None: ask the next candidate."""
        s = self.s
        no = self.client.attempts_before + len(self.calls) + self.unused + 1
        channel = self.asked.own or self.live.channels[candidate.backend.name]
        self._rename(candidate)
        why = AttemptReason(self.decided, self.reasons)  # type: ignore[arg-type]  # one of DecisionKind
        hold = await s.accounts.hold(self.facts, channel.backend, why, no, candidate.cost_bound_nano)
        if isinstance(hold, HoldRefused):
            self.unused += hold.code == "ledger"  # its number may be on disk
            self.reasons = (*self.reasons, hold.code)
            status, code = (402, "budget_exceeded") if hold.code == "budget" else (503, "overloaded")
            self.refused = Refusal(status, code, hold.message, retry_after_s=None if status == 402 else 5.0)
            return None
        slo = self.facts.hints.slo_ttft_s or self.live.policy.slo.ttft_s
        trip = s.board.sent(candidate, self.facts.prompt_bytes, slo, s.clock())
        if trip is None:
            self.unused += hold.stored
            s.accounts.release(hold)
            self.refused = Refusal(503, "overloaded", "The local backlog is at its bound.", retry_after_s=1.0)
            return None
        call = UpstreamAttempt((s.accounts, s.board, s.clock), channel, candidate, hold, trip, self.asked.started)
        self.calls.append(call)
        return call

    def may_go_on(self) -> bool:
        """Another attempt is a retry, which the retry budget must cover; an engine whose queue was full did no work,
        so that moving on from it is overflow and free."""
        if not self.calls:
            return True
        last = self.calls[-1].record
        if last is not None and last.outcome.kind == "overloaded":
            return True
        return self.s.board.may_retry(self.s.clock())

    def learn_limits(self, call: UpstreamAttempt, headers: Mapping[str, str]) -> None:
        """What a provider's headers say of its rate limits."""
        if not call.channel.backend.local:
            seconds = exhausted_for_s(headers, self.s.wall())
            if seconds:
                self.s.board.limited(call.channel.backend.name, seconds, self.s.clock())

    def commit(self, call: UpstreamAttempt) -> None:
        """This call's answer goes to the client: drafts of others end here, their upstreams close."""
        self.backend = call.channel.backend.name
        self.start_heartbeat(None)
        for other in self.calls:
            if other is not call:
                other.discard()

    def answered_locally(self) -> bool:
        """True if the client's answer came from a local backend."""
        channel = self.live.channels.get(self.backend)
        return channel is not None and channel.backend.local

    async def durable(self) -> None:
        """Until the rows of all attempts are on disk."""
        for call in self.calls:
            if call.row is not None:
                await self.s.accounts.durable(call.row)

    def start_heartbeat(self, heartbeat: Heartbeat | None) -> None:
        """The client waits for what is held back, its connection kept alive; or (None) no longer."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.heartbeat = heartbeat

    # confidence

    def calibration(self, call: UpstreamAttempt) -> Calibration | None:
        """The calibration, if it was made for this backend's model."""
        known, backend = self.live.scoring.calibration, call.channel.backend
        if known is None or backend.name in self.live.scoring.barred:
            return None
        return known if known.key.model in (ANY, backend.model) else None

    def yardstick(self, call: UpstreamAttempt) -> ConfidenceCriteria:
        """What a whole answer of this call is measured by."""
        return ConfidenceCriteria(self.facts.task, self.calibration(call), self.live.scoring.rules)

    def least_confidence(self) -> float:
        """Below it an answer is to be sought one tier up."""
        asked = self.facts.hints.min_confidence
        return self.s.audits.threshold(self.live) if asked is None else asked

    def audited(self) -> bool:
        """Draw whether the local answer that goes to the client now is audited; not one that was kept under a bar of
        its own, as audits keep watch over the configured one."""
        return self.facts.hints.min_confidence is None and self.escalates() and self.s.audits.drawn(self.live)

    def audit(self, text: str) -> None:
        """Audit this local answer, which the client got."""
        no = self.client.attempts_before + len(self.calls) + self.unused + 1
        self.s.audits.offer(AuditSample(self.facts, self.client.body, self.body, text, no, self._scored()))

    def _scored(self) -> ScoredAnswer | None:
        verdict = self.verdict
        if verdict is None or not verdict.scores:
            return None
        task = self.facts.task or ("json" if is_document(self.body) else "chat")
        model = self.live.channels[self.backend].backend.model
        return ScoredAnswer(task, self.backend, model, verdict.confidence, verdict.scores)

    def escalates(self) -> bool:
        """False if no confidence could send this request one tier up: who pinned a backend, forbade fallbacks or asks
        for local only, and private content. The filters decide again when it comes to it; this spares a stream the
        wait that could not help it."""
        facts = self.facts
        open_to_it = facts.privacy.may_leave and facts.preferences.allow_fallbacks and facts.hints.route != "local"
        return open_to_it and bool(self.live.policy.confidence.escalate_to) and self.decision.kind != "pinned"

    def doubts(self, confidence: float | None) -> bool:
        """True if an answer of this confidence is to be sought one tier up. No signal is no doubt."""
        if self.decision.kind == "pinned" or not self.facts.preferences.allow_fallbacks:
            return False
        return confidence is not None and confidence < self.least_confidence()

    # names and sums

    def cost(self) -> int:
        """Nano-dollars of all attempts so far."""
        return sum(call.cost_nano for call in self.calls)

    def overhead_s(self) -> float:
        """Time from the request's arrival to its first call."""
        started = self.asked.started
        return self.calls[0].sent_at - started if self.calls else self.s.clock() - started

    def lines(self, call: UpstreamAttempt | None) -> Lines:
        """Header lines that tell what was decided and done."""
        lines: Lines = []
        if call is not None:
            lines.append(call.channel.lines)
            lines.append(b"x-spillway-decision: %b\r\n" % self.decided.encode())
        if self.reasons:
            lines.append(b"x-spillway-reason: %b\r\n" % ",".join(self.reasons).encode())
        overhead_ms = self.overhead_s() * 1000
        lines.append(b"x-spillway-attempts: %d\r\nx-spillway-overhead-ms: %.2f\r\n" % (len(self.calls), overhead_ms))
        if self.confidence is not None:
            lines.append(b"x-spillway-confidence: %.4f\r\n" % self.confidence)
        return lines

    def told(self) -> dict[str, Any]:
        """What the headers of a whole answer tell, as JSON values."""
        model = self.live.channels[self.backend].backend.model if self.backend else ""
        told: dict[str, Any] = {"decision": self.decided, "reasons": self.reasons, "backend": self.backend}
        told["model"] = model
        if self.confidence is not None:
            told["confidence"] = round(self.confidence, 4)
        return told

    def trailing_event(self, frame: Mapping[str, Any] | None = None) -> Extension:
        """The same at the end of a stream; `frame`: what names the answer in each of its events."""
        member = self.told()
        event = {**(frame or {"object": "chat.completion.chunk"}), "choices": [], "spillway": member}
        return Extension(member, b"data: " + orjson.dumps(event) + b"\n\n")

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

    # ends

    def note_failure(self, candidate: Candidate, outcome: Outcome) -> None:
        """What the client is told if this was the last word."""
        self.refused = failure_refusal(candidate, outcome)

    def refuse(self) -> None:
        """The last refusal goes to the client."""
        refusal = self.refused or Refusal(503, "no_backend", "No backend could be asked.", retry_after_s=5.0)
        refusal = self._kept_here(refusal)
        self.status, self.code = refusal.status, refusal.code
        self.client.refuse(refusal, self.lines(self.calls[-1] if self.calls else None))

    def _kept_here(self, refusal: Refusal) -> Refusal:
        """The refusal as it stands for a private request whose local backends failed: others were there, but barred."""
        barred = any(removed.reason == "privacy" for removed in self.decision.removed)
        if refusal.status < 500 or not barred or refusal.code == "local_only_unavailable":
            return refusal
        message = f"No local backend can answer this private request now. {refusal.message}"
        return Refusal(503, "local_only_unavailable", message, retry_after_s=refusal.retry_after_s or 5.0)

    def remember(self) -> None:
        """The record for /v1/requests/{id}, and the hooks."""
        self.start_heartbeat(None)
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
            self.overhead_s(),
            self.cost(),
            self.confidence,
        )
        self.s.records.add(record)
        for hook in self.s.hooks:
            hook(record)
