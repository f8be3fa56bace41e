"""A request that the router starts itself: the steps of a document go through the same exchange as chat, without HTTP.

A document is one request, and each step that asks a model is an exchange of it: the same filters, one request id,
consecutive attempt numbers, a hold and a ledger row for each attempt, and one record at the end. The exchange answers
a `CapturingClient`, which keeps the reply instead of writing it to a socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import (
    Attempt,
    Backend,
    Caller,
    Decision,
    ExpectedGain,
    Outcome,
    PrivacyVerdict,
    Refusal,
    Removed,
    RequestFacts,
    RequestRecord,
)
from spillway_router.core.routing.policy import ConfidenceRule, Policy, decide, decide_escalation
from spillway_router.ledger.holds import AttemptReason, AttemptResult, HoldRefused
from spillway_router.proxy.client.capturing_client import CapturingClient
from spillway_router.proxy.client.judgement import AnswerJudge
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.allowance import (
    NO_ALLOWANCE,
    document_tokens,
    settle_allowance,
    take_allowance,
)
from spillway_router.proxy.exchange.attempt import AttemptNumbers
from spillway_router.proxy.exchange.audit_sample import AuditSample, Compare, DocumentAudit, LocalReading
from spillway_router.proxy.exchange.caller_signals import caller_signals, with_gain_prices
from spillway_router.proxy.exchange.exchange import Admitted, run
from spillway_router.proxy.exchange.record import build_record, publish
from spillway_router.proxy.exchange.ruling import in_arm, under_rules
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.state import DecidedRequest, ExchangeState
from spillway_router.proxy.request.errors import RefusedError, bad_request
from spillway_router.proxy.request.facts import read_facts
from spillway_router.proxy.request.large_body import examined, in_thread

_CHAIN = "documents"
"""The alias under which a step's own chain enters the policy."""
_NEEDED_CAPABILITIES = (("response_format", "json_schema"), ("logprobs", "logprobs"))
"""Fields of a step's body, and the capability that a backend needs for each."""


def _all_backends(policy: Policy) -> tuple[str, ...]:
    """Name the backends that can be asked, in the order of the configuration."""
    return tuple([name for name, backend in policy.backends.items() if not backend.any_model])


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step: a chat body for local or for cloud backends.

    `chain` names the backends to ask, in order; if it is empty, the body's `model` decides. `gain` is the probability
    that the answer improves, which the pace of a budget weighs; None where there is no draft to improve.
    """

    side: Literal["local", "cloud"]
    body: Mapping[str, Any]
    chain: tuple[str, ...] = ()
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class StepReply:
    """How a step ended.

    `answer` is the backend's whole JSON. It is None if there is no answer; then `code` and `message` say why, and
    `removed` which rule removed which backend. `cost_nano` are the nano-dollars of the step's attempts.
    """

    answer: Mapping[str, Any] | None
    code: str
    message: str
    backend: str
    model: str
    reasons: tuple[str, ...]
    removed: tuple[Removed, ...]
    attempts: tuple[Attempt, ...]
    cost_nano: int


class InternalExchange:
    """The exchange of one document. Create it with `InternalExchange.open`; `close` it when the document is done."""

    def __init__(self, services: Services, admitted: Admitted, headers: Mapping[str, str], facts: RequestFacts) -> None:
        self._services, self._admitted = services, admitted
        self._headers = dict(headers)
        self._facts = facts
        self._numbers = AttemptNumbers()
        self._allowance = NO_ALLOWANCE
        self._record = RequestRecord(
            facts=facts,
            decision=Decision(
                kind="local", candidates=(), reasons=(), removed=(), policy=admitted.config.policy.version
            ),
            attempts=(),
            status=200,
            code="",
            backend="",
            decided="local",
            reasons=(),
            wall_s=0.0,
            total_s=0.0,
            overhead_s=0.0,
            cost_nano=0,
            confidence=None,
            trace=None if services.trace_of is None else services.trace_of(facts.request_id, self._headers),
        )
        """What the steps have done so far."""

    @classmethod
    async def open(
        cls,
        services: Services,
        admitted: Admitted,
        headers: Mapping[str, str],
        body: dict[str, Any],
        task: str,
        also: Mapping[str, Any],
    ) -> InternalExchange:
        """Start the exchange of a document.

        `body` is the document's content as a chat body; privacy is judged by it and by `also`, which holds what else
        the client sent. Raise RefusedError for invalid headers or content.
        """
        if "x-spillway-provider" in headers or "x-spillway-provider-key" in headers:
            # Ignoring the headers would read the document on our account, and where the caller did not want it.
            raise bad_request("Documents can't be read with a provider key of your own. Omit x-spillway-provider.")
        rule = admitted.config.privacy
        caller = admitted.caller
        searched = await examined(body, rule.detectors, rule.recognizer, also, key_id=caller.key_id)
        facts = await in_thread(caller.key_id, read_facts, services.new_id(), "chat", headers, searched, caller, rule)
        facts = replace(await services.memory.sessions.joined(facts), task=task, document=True)
        config = under_rules(services, admitted.config, facts)
        return cls(services, replace(admitted, config=config), headers, in_arm(config, facts))

    async def enter(self) -> None:
        """Count the document against the limits of its key and its user; `close` has to follow. Raise RefusedError if
        they have no room for it."""
        facts = self._facts
        allowance = await take_allowance(self._services, facts, document_tokens(facts), better=False)
        if isinstance(allowance, Refusal):
            raise RefusedError(allowance)
        self._allowance = allowance

    @property
    def request_id(self) -> str:
        """The id of the request to which all steps belong."""
        return self._facts.request_id

    @property
    def key_id(self) -> str:
        """The id of the caller's key; "" without one."""
        return self._facts.caller.key_id

    @property
    def privacy(self) -> PrivacyVerdict:
        """Whether the document may leave."""
        verdict = self._facts.privacy
        if verdict.may_leave and self._facts.caller.local_only:
            return PrivacyVerdict(False, ("key",))
        return verdict

    @property
    def may_route(self) -> bool:
        """Whether the caller may choose between local and cloud, as by a confidence above the configured one."""
        return self._facts.caller.may_route

    @property
    def min_confidence(self) -> float | None:
        """The least confidence that a header requires (x-spillway-min-confidence); None without the header."""
        return self._facts.hints.min_confidence

    def threshold(self, configured: float) -> float:
        """Return the least confidence with which a local model answers: the configured one, as audits have moved it."""
        return self._services.audits.threshold("document", self._admitted.config, configured)

    def offer_audit(self, reading: LocalReading, step: StepRequest, compare: Compare) -> None:
        """Offer the local reading of a document that has its answer to the audits. Never waits.

        `step` is how a better model would be asked, and `compare` reads what its answer says of the local reading.
        """
        config, hints = self._admitted.config, self._facts.hints
        if not self.privacy.may_leave or hints.route == "local" or self._record.decision.kind == "pinned":
            return
        judges = self._backend_names(step, config.policy)
        if not judges or not self._services.audits.draws_document(config, reading):
            return
        body = self._body(step, config.policy)
        facts = self._step_facts(step, body)
        audit = DocumentAudit(reading.threshold, reading.used, judges, compare)
        self._services.audits.offer(
            AuditSample(
                facts=facts,
                raw=orjson.dumps(body),
                body=body,
                answer="",
                attempt_no=self._numbers.next,
                scored=reading.scored,
                document=audit,
            )
        )

    async def run_step(self, step: StepRequest, judge: AnswerJudge) -> StepReply:
        """Run one step. `judge` is called with a whole answer before its row is written.

        When the document's client leaves this is cancelled, and the attempt under way ends as aborted.
        """
        config = self._step_config(step)
        body = self._body(step, config.policy)
        client = CapturingClient("chat", self._headers, orjson.dumps(body), self.request_id)
        facts = self._step_facts(step, body)
        decision = self._decide(step, facts, config)
        request = DecidedRequest(facts, body, decision, started_s=self._admitted.started_s)
        state = ExchangeState(self._services, config, client, request=request, numbers=self._numbers)
        state.answer_judge = judge
        try:
            await run(state)
        finally:
            record = build_record(state)
            self._add(record)
        return _reply(record, client)

    async def record_step(self, backend: str, model: str, confidence: float | None) -> None:
        """Write the row of a step that gave the document's values without a model; it costs nothing."""
        services, attempt_no = self._services, self._numbers.next
        source = Backend(
            name=backend, provider=backend, model=model, local=True, endpoints=frozenset(), capabilities=frozenset()
        )
        reasons = (backend,)
        since_start_s = services.clock() - self._admitted.started_s
        hold = await services.accounts.hold(self._facts, source, AttemptReason("local", reasons), attempt_no, 0)
        assert not isinstance(hold, HoldRefused), "an attempt without a price needs no hold"
        self._numbers.take()
        _, row = services.accounts.settle(hold, source, AttemptResult("ok", Usage(0, 0), confidence=confidence))
        await services.accounts.durable(row)
        attempt = Attempt(
            attempt_no,
            backend,
            model,
            started_s=since_start_s,
            ended_s=since_start_s,
            outcome=Outcome("ok"),
            confidence=confidence,
            reasons=reasons,
        )
        self._record = replace(
            self._record,
            attempts=(*self._record.attempts, attempt),
            decided="local",
            reasons=reasons,
            backend=backend,
            confidence=confidence,
        )

    def close(self, status: int, code: str = "") -> None:
        """Add the document's record, with the attempts of all its steps, and call the hooks."""
        services, record = self._services, self._record
        total_s = services.clock() - self._admitted.started_s
        record = replace(
            record,
            status=status,
            code=code,
            wall_s=services.wall(),
            total_s=total_s,
            overhead_s=record.attempts[0].started_s if record.attempts else total_s,
        )
        settle_allowance(services, self._allowance, record)
        publish(services, record)

    def _backend_names(self, step: StepRequest, policy: Policy) -> tuple[str, ...]:
        """Name the backends of a step's side in the order in which they are asked."""
        model = str(step.body.get("model", "auto"))
        chain = step.chain or policy.aliases.get(model) or _all_backends(policy)
        return tuple(name for name in chain if policy.backends[name].local == (step.side == "local"))

    def _step_config(self, step: StepRequest) -> ActiveConfig:
        """Return the configuration for a step: its own chain, and no escalation but the steps themselves."""
        config = self._admitted.config
        names = self._backend_names(step, config.policy)
        aliases = {**config.policy.aliases, _CHAIN: names} if step.chain else config.policy.aliases
        rule = ConfidenceRule(escalate_to=names if step.side == "cloud" else ())
        return replace(config, policy=replace(config.policy, aliases=aliases, confidence=rule))

    def _body(self, step: StepRequest, policy: Policy) -> dict[str, Any]:
        """Return the step's body without the fields that no backend of its side supports.

        Clouds are asked for log-probabilities only if all of them return some: otherwise the filters would pass over a
        better cloud because it lacks them.
        """
        body = dict(step.body)
        names = self._backend_names(step, policy)
        lacking = self._services.board.lacking
        backends = policy.named(names)
        capabilities = [backend.capabilities - lacking(backend.name) for backend in backends]
        for field, needed in _NEEDED_CAPABILITIES:
            enough = all if (step.side, needed) == ("cloud", "logprobs") else any
            if field in body and not enough(needed in supported for supported in capabilities):
                del body[field]
        if "logprobs" not in body:
            body.pop("top_logprobs", None)
        routes = [self._admitted.config.route_to(backend) for backend in backends]
        bound_fields = {route.provider.entry.output_bound_field for route in routes}
        if len(bound_fields) == 1 and "max_tokens" in body:
            body[bound_fields.pop()] = body.pop("max_tokens")
        if step.chain:
            body["model"] = _CHAIN
        return body

    def _step_facts(self, step: StepRequest, body: Mapping[str, Any]) -> RequestFacts:
        """Return the facts of a step's body; they are private if the document is."""
        admitted, document = self._admitted, self._facts
        caller = _for_steps(admitted.caller, document.model)
        # The document's content, of which every step's body consists, was searched when the exchange was opened.
        rule = replace(admitted.config.privacy, detectors=None, recognizer=None)
        facts = read_facts(self.request_id, "chat", self._headers, body, caller, rule)
        requested = document.hints.route
        hints = replace(facts.hints, route=step.side if requested == "auto" else requested, min_confidence=None)
        privacy = facts.privacy if self.privacy.may_leave else self.privacy
        return replace(facts, task=document.task, document=True, hints=hints, privacy=privacy)

    def _decide(self, step: StepRequest, facts: RequestFacts, config: ActiveConfig) -> Decision:
        """Decide by the filters, as for chat; where there is a draft to improve, by the pace of the budget too."""
        policy = config.policy
        if facts.hints.route != step.side:
            message = f"The request allows only {facts.hints.route} backends (x-spillway-route)."
            return Decision(
                kind="local",
                candidates=(),
                reasons=("route",),
                removed=(),
                policy=policy.version,
                refusal=Refusal(400, "invalid_request", message),
            )
        signals = caller_signals(self._services, config, facts)
        unpaced = decide(facts, signals, policy)
        if step.gain is None or not unpaced.candidates:
            return unpaced
        first = unpaced.candidates[0]
        gain = ExpectedGain(step.gain, Usage(first.prompt_tokens, first.output_tokens))
        paced = decide_escalation(facts, with_gain_prices(self._services, config, facts, signals), policy, gain)
        if paced.candidates:
            return paced
        reasons = "; ".join(f"{removed.backend}: {removed.detail}" for removed in paced.removed)
        return replace(paced, refusal=Refusal(402, "budget_exceeded", f"Not worth its cost now. {reasons}."))

    def _add(self, step: RequestRecord) -> None:
        """Add a step's record to the document's."""
        total = self._record
        self._record = replace(
            step,
            facts=self._facts,
            attempts=(*total.attempts, *step.attempts),
            cost_nano=total.cost_nano + step.cost_nano,
        )


def _for_steps(caller: Caller, model: str) -> Caller:
    """Return the caller of a step. Whoever may use the document's model may use the chains that stand for it."""
    rules = caller.rules
    if rules is None or model not in rules.models:
        return caller
    return replace(caller, rules=replace(rules, models=rules.models | {_CHAIN}))


def _reply(record: RequestRecord, client: CapturingClient) -> StepReply:
    content = orjson.loads(client.content) if client.content else {}
    answered = client.status == 200
    error = {} if answered else content.get("error", {})
    last = record.attempts[-1] if record.attempts else None
    return StepReply(
        answer=content if answered else None,
        code=record.code,
        message=str(error.get("message", "")),
        backend=record.backend if answered or last is None else last.backend,
        model="" if last is None else last.model,
        reasons=record.reasons,
        removed=record.decision.removed,
        attempts=record.attempts,
        cost_nano=record.cost_nano,
    )
