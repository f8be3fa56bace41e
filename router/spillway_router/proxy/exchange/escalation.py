"""Confidence policy of one request: what an answer is judged by, whether it is escalated, whether it is audited."""

from __future__ import annotations

from spillway_router.core.confidence.calibration import ANY, Calibration
from spillway_router.core.routing.model import Backend
from spillway_router.proxy.exchange.attempt import UpstreamAttempt
from spillway_router.proxy.exchange.audit_sample import AuditSample, ScoredAnswer
from spillway_router.proxy.exchange.state import ExchangeState
from spillway_router.proxy.scoring.scoring import ConfidenceCriteria, is_document


def threshold(state: ExchangeState, backend: Backend) -> float:
    """The least confidence of an answer that is not escalated: of a step of escalation its own, 0 if its answer is
    final; of a local answer the header's, else the configured one as audits moved it. A key that may not choose between
    local and cloud can only lower it."""
    if not backend.local:
        return state.config.policy.confidence.step_threshold(backend.name) or 0.0
    min_confidence, may_raise = state.facts.hints.min_confidence, state.facts.caller.may_route
    if min_confidence is not None and may_raise:
        return min_confidence
    config, policy = state.config, state.config.policy
    configured = policy.confidence.threshold
    if not policy.ruling.sets_confidence:  # audits move the general threshold only
        configured = state.services.audits.threshold("chat", config, configured)
    return configured if min_confidence is None else min(min_confidence, configured)


def is_step(state: ExchangeState, backend: Backend) -> bool:
    """True if this cloud is asked because an earlier answer was not sure or good enough."""
    return state.decided == "escalated" and not backend.local


def may_escalate(state: ExchangeState) -> bool:
    """False if no confidence could send this request one tier up: it pins a backend, forbids fallbacks, asks for local
    only, or is private. The filters decide again on an escalation; this spares a stream a wait that could not help."""
    facts = state.facts
    allowed = facts.privacy.may_leave and facts.preferences.allow_fallbacks and facts.hints.route != "local"
    return allowed and bool(state.config.policy.confidence.escalate_to) and state.decision.kind != "pinned"


def should_escalate(state: ExchangeState, backend: Backend, confidence: float | None) -> bool:
    """True if an answer of this confidence is to be sought one tier up. An answer without a confidence is not."""
    if state.decision.kind == "pinned" or not state.facts.preferences.allow_fallbacks:
        return False
    return confidence is not None and confidence < threshold(state, backend)


def calibration(state: ExchangeState, attempt: UpstreamAttempt) -> Calibration | None:
    """The calibration, if it was made for the model of the attempt's backend."""
    configured, backend = state.config.scoring.calibration, attempt.backend
    if not backend.local:
        return state.config.scoring.step_calibrations.get(backend.name)
    if configured is None or backend.name in state.config.scoring.uncalibrated_backends:
        return None
    return configured if configured.key.model in (ANY, backend.model) else None


def criteria(state: ExchangeState, attempt: UpstreamAttempt) -> ConfidenceCriteria:
    """What a whole answer of this attempt is judged by."""
    return ConfidenceCriteria(state.facts.task, calibration(state, attempt), state.config.scoring.rules)


def draw_audit(state: ExchangeState, backend: Backend) -> bool:
    """Draw whether the answer that goes to the client now is audited, which only a local one can be.

    One that was accepted under a threshold of the request's own or of a rule never is, as audits watch the configured
    one.
    """
    by_other = state.facts.hints.min_confidence is not None or state.config.policy.ruling.sets_confidence
    if by_other or not backend.local or not may_escalate(state):
        return False
    return state.services.audits.draws_chat(state.config)


def offer_audit(state: ExchangeState, text: str) -> None:
    """Audit the local answer `text`, which the client got."""
    sample = AuditSample(
        facts=state.facts,
        raw=state.client.body,
        body=state.body,
        answer=text,
        attempt_no=state.numbers.next,
        scored=_scored_answer(state),
    )
    state.numbers.take()
    state.services.audits.offer(sample)


def _scored_answer(state: ExchangeState) -> ScoredAnswer | None:
    verdict = state.verdict
    if verdict is None or not verdict.scores:
        return None
    task = state.facts.task or ("json" if is_document(state.body) else "chat")
    return ScoredAnswer(
        task=task, backend=state.backend, model=state.model(), confidence=verdict.confidence, scores=verdict.scores
    )
