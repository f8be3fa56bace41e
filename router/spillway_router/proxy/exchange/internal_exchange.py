"""A request that the router itself asks: a document's steps go through the same exchange as chat, without HTTP.

The steps are attempts of one request: one id, numbers that go on, one record at the end, each attempt with its own hold
and its own row. The exchange answers to a `CapturingClient`, which keeps the reply instead of writing it to a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import (
    Attempt,
    Backend,
    Decision,
    ExpectedGain,
    Outcome,
    PrivacyVerdict,
    Refusal,
    RequestFacts,
    RequestRecord,
)
from spillway_router.core.routing.policy import ConfidenceRule, Policy, decide, decide_escalation
from spillway_router.ledger.holds import AttemptReason, AttemptResult, HoldRefused
from spillway_router.proxy.client.capturing_client import CapturingClient
from spillway_router.proxy.client.document_step import LocalRead, StepAsked, StepJudge, StepReply
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.audit_sample import AuditSample, DocumentAudit, ScoredAnswer
from spillway_router.proxy.exchange.exchange import Admitted, run
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import ExchangeState, Question
from spillway_router.proxy.memory.records import Records
from spillway_router.proxy.request.body import bad
from spillway_router.proxy.request.facts import read_facts

_CHAIN = "documents"
"""The name of the chain that a step brings along."""
_NEEDS = (("response_format", "json_schema"), ("logprobs", "logprobs"))


@dataclass(slots=True)
class _Sums:
    """What the steps so far did."""

    decision: Decision
    attempts: tuple[Attempt, ...] = ()
    unused: int = 0
    """Attempt numbers whose holds may be in the ledger although no call was made."""
    cost_nano: int = 0
    decided: str = "local"
    reasons: tuple[str, ...] = ()
    backend: str = ""
    confidence: float | None = None


class InternalExchange:
    """A `DocumentExchange`. Make it with `InternalExchange.open`."""

    def __init__(self, s: Services, admitted: Admitted, headers: Mapping[str, str], facts: RequestFacts) -> None:
        self._s, self._admitted = s, admitted
        self._headers = dict(headers)
        self._facts = facts
        self._sums = _Sums(Decision("local", (), (), (), admitted.live.policy.version))

    @classmethod
    def open(
        cls, s: Services, admitted: Admitted, headers: Mapping[str, str], body: Mapping[str, Any], task: str
    ) -> InternalExchange:
        """`body`: all of the document's content, as a chat body; privacy is judged on it. Raises BadRequestError."""
        live = admitted.live
        if "x-spillway-provider" in headers or "x-spillway-provider-key" in headers:
            # Ignoring it would read the document on our account, and where it was not meant to go.
            raise bad("Own provider keys are not used for documents. Leave x-spillway-provider out.")
        facts = read_facts(s.new_id(), "chat", headers, body, admitted.caller, live.privacy)
        if facts.hints.session_id:
            session = (admitted.caller.key_id, facts.hints.session_id)
            facts = replace(facts, privacy=s.memory.sessions.verdict(session, facts.privacy, admitted.started))
        s.board.arrived()
        return cls(s, admitted, headers, replace(facts, task=task, document=True))

    @property
    def request_id(self) -> str:
        """See DocumentExchange."""
        return self._facts.request_id

    @property
    def privacy(self) -> PrivacyVerdict:
        """See DocumentExchange."""
        verdict = self._facts.privacy
        if verdict.may_leave and self._facts.caller.local_only:
            return PrivacyVerdict(False, ("key",))
        return verdict

    @property
    def least_confidence(self) -> float | None:
        """See DocumentExchange."""
        return self._facts.hints.min_confidence

    def bar(self, configured: float) -> float:
        """See DocumentExchange."""
        return self._s.audits.bar(self._admitted.live, configured)

    def watch(self, read: LocalRead) -> None:
        """See DocumentExchange."""
        live, hints = self._admitted.live, self._facts.hints
        if not self.privacy.may_leave or hints.route == "local" or self._sums.decision.kind == "pinned":
            return
        judges = self._names(read.asked, live.policy)
        if not judges or not self._s.audits.wants(live, read):
            return
        body = self._body(read.asked, live.policy)
        facts = self._step_facts(read.asked, body)
        what = DocumentAudit(read.bar, read.kept, judges, read.compare)
        scored = ScoredAnswer(facts.task, read.backend, read.model, read.confidence, read.scores)
        self._s.audits.offer(AuditSample(facts, orjson.dumps(body), body, "", self._next_no(), scored, what))

    async def ask(self, asked: StepAsked, judge: StepJudge) -> StepReply:
        """See DocumentExchange. Cancelled when who asks is gone: then the attempt under way ends as aborted."""
        live = self._live(asked)
        body = self._body(asked, live.policy)
        raw = orjson.dumps(body)
        client = CapturingClient("chat", self._headers, raw, self.request_id, judge)
        client.attempts_before = self._next_no() - 1
        facts = self._step_facts(asked, body)
        decision = self._decide(asked, facts, live)
        own = Records(1)
        quiet = replace(self._s, records=own, hooks=())
        job = ExchangeState(quiet, live, client, Question(facts, body, decision, self._admitted.started))
        try:
            await run(job)
        finally:
            job.remember()
            self._sums.unused += job.unused
            record = own.get(self.request_id)
            assert record is not None
            self._add(record)
        return _reply(record, client)

    async def note(self, backend: str, model: str, confidence: float | None) -> None:
        """See DocumentExchange."""
        s, sums = self._s, self._sums
        no = self._next_no()
        place = Backend(backend, backend, model, True, frozenset(), frozenset())
        now = s.clock() - self._admitted.started
        hold = await s.accounts.hold(self._facts, place, AttemptReason("local", (backend,)), no, 0)
        assert not isinstance(hold, HoldRefused), "an attempt without a price needs no hold"
        _, row = s.accounts.settle(hold, place, AttemptResult("ok", Usage(0, 0), confidence=confidence))
        await s.accounts.durable(row)
        attempt = Attempt(no, backend, model, now, now, Outcome("ok"), confidence=confidence, reasons=(backend,))
        sums.attempts = (*sums.attempts, attempt)
        sums.decided, sums.reasons, sums.backend, sums.confidence = "local", (backend,), backend, confidence

    def close(self, status: int, code: str = "") -> None:
        """See DocumentExchange."""
        sums, s = self._sums, self._s
        started = self._admitted.started
        total = s.clock() - started
        first = sums.attempts[0].started_s if sums.attempts else total
        record = RequestRecord(
            self._facts,
            sums.decision,
            sums.attempts,
            status,
            code,
            sums.backend,
            sums.decided,
            sums.reasons,
            s.wall(),
            total,
            first,
            sums.cost_nano,
            sums.confidence,
        )
        s.records.add(record)
        for hook in s.hooks:
            hook(record)

    def _next_no(self) -> int:
        return len(self._sums.attempts) + self._sums.unused + 1

    def _names(self, asked: StepAsked, policy: Policy) -> tuple[str, ...]:
        """The backends of a step's side, in the order in which they are asked."""
        model = str(asked.body.get("model", "auto"))
        chain = asked.chain or policy.aliases.get(model, tuple(policy.backends))
        return tuple(name for name in chain if policy.backends[name].local == (asked.side == "local"))

    def _live(self, asked: StepAsked) -> ActiveConfig:
        """The configuration under which a step runs: its own chain, and no escalation but the steps themselves."""
        live = self._admitted.live
        names = self._names(asked, live.policy)
        aliases = {**live.policy.aliases, _CHAIN: names} if asked.chain else live.policy.aliases
        rule = ConfidenceRule(escalate_to=names if asked.side == "cloud" else ())
        return replace(live, policy=replace(live.policy, aliases=aliases, confidence=rule))

    def _body(self, asked: StepAsked, policy: Policy) -> dict[str, Any]:
        """The step's body. What no backend of its side can do is left out; confidence is asked of clouds only where all
        of them can tell it, as no better one may be passed over for that."""
        body = dict(asked.body)
        names = self._names(asked, policy)
        able = [policy.backends[name].capabilities for name in names]
        for field, capability in _NEEDS:
            enough = all if (asked.side, capability) == ("cloud", "logprobs") else any
            if field in body and not enough(capability in known for known in able):
                del body[field]
        if "logprobs" not in body:
            body.pop("top_logprobs", None)
        bound_fields = {self._admitted.live.channels[name].provider.entry.output_bound_field for name in names}
        if len(bound_fields) == 1 and "max_tokens" in body:
            body[bound_fields.pop()] = body.pop("max_tokens")
        if asked.chain:
            body["model"] = _CHAIN
        return body

    def _step_facts(self, asked: StepAsked, body: Mapping[str, Any]) -> RequestFacts:
        """Facts of a step's body, private if the whole document is."""
        live, whole = self._admitted.live, self._facts
        facts = read_facts(self.request_id, "chat", self._headers, body, self._admitted.caller, live.privacy)
        wanted = whole.hints.route
        route = asked.side if wanted == "auto" else wanted
        hints = replace(facts.hints, route=route, min_confidence=None)
        privacy = facts.privacy if self.privacy.may_leave else self.privacy
        return replace(facts, task=whole.task, document=True, hints=hints, privacy=privacy)

    def _decide(self, asked: StepAsked, facts: RequestFacts, live: ActiveConfig) -> Decision:
        """As for chat: by the filters, and where a draft is there to be better than, by the pace of the budget too."""
        version = live.policy.version
        if facts.hints.route != asked.side:
            told = f"The request asks for {facts.hints.route} only (x-spillway-route)."
            return Decision("local", (), ("route",), (), version, Refusal(400, "invalid_request", told))
        signals = self._s.signals(live, facts)
        plain = decide(facts, signals, live.policy)
        if asked.gain is None or not plain.candidates:
            return plain
        first = plain.candidates[0]
        doubt = ExpectedGain(asked.gain, Usage(first.prompt_tokens, first.output_tokens))
        paced = decide_escalation(facts, self._s.priced(live, facts, signals), live.policy, doubt)
        if paced.candidates:
            return paced
        told = "; ".join(f"{removed.backend}: {removed.detail}" for removed in paced.removed)
        return replace(paced, refusal=Refusal(402, "budget_exceeded", f"Not worth its cost now. {told}."))

    def _add(self, record: RequestRecord) -> None:
        sums = self._sums
        sums.attempts = (*sums.attempts, *record.attempts)
        sums.cost_nano += record.cost_nano
        sums.decided, sums.reasons, sums.backend = record.decided, record.reasons, record.backend
        sums.confidence, sums.decision = record.confidence, record.decision


def _reply(record: RequestRecord, client: CapturingClient) -> StepReply:
    told = orjson.loads(client.reply) if client.reply else {}
    good = client.status == 200
    error = {} if good else told.get("error", {})
    last = record.attempts[-1] if record.attempts else None
    return StepReply(
        told if good else None,
        record.code,
        str(error.get("message", "")),
        record.backend if good else "" if last is None else last.backend,
        "" if last is None else last.model,
        record.reasons,
        record.decision.removed,
        record.attempts,
        record.cost_nano,
    )
