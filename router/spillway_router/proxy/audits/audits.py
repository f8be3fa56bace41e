"""Audits: a random share of local answers is asked of a stronger model too, to see whether confidence keeps its word.

Samples wait in a bounded queue (when it is full a sample is dropped and counted) for one worker, which runs after the
client has its answer. The stronger model is paid from the budget as an attempt of its own, with the decision `audit`.
Its answer is compared (core/confidence/agreement.py; documents compare field by field) and thrown away, and the result
moves the threshold (thresholds.py). Nothing private, nothing pinned and nothing that asks for local only is ever
audited, as the same filters decide as for an escalation. What an audit found of an answer that was judged whole is
stored as a label for `spillway calibrate`.

Where audits raised the threshold above every answer, nothing is accepted and so nothing can be drawn. Whole answers
that were escalated have their better answer already: those of the highest confidence (probes) are compared for free,
until it is safe to lower the threshold again. Of documents that a parser answered instead, the same share is audited
as of those that the local model answered.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import orjson

from spillway_router.aio.sample_queue import SampleQueue
from spillway_router.core.confidence import drift
from spillway_router.core.confidence.agreement import agree
from spillway_router.core.routing.policy import decide_escalation
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.providers.logprobs import answer_text
from spillway_router.proxy.audits.thresholds import AuditedThreshold, ThresholdState
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.asked_again import INTERRUPTED, ask_again, open_again
from spillway_router.proxy.exchange.attempt import FetchedAnswer, NotOpened, UpstreamAttempt
from spillway_router.proxy.exchange.audit_sample import (
    AuditKind,
    AuditSample,
    DocumentComparison,
    LocalReading,
    ScoredAnswer,
)
from spillway_router.proxy.exchange.caller_signals import caller_signals
from spillway_router.proxy.exchange.departure import renewed
from spillway_router.proxy.exchange.ruling import under_rules
from spillway_router.proxy.exchange.services import Services

log = logging.getLogger("spillway.audits")

Result = Literal[
    "agreed",
    "disagreed",
    "unclear",  # the better answer could not be read, or its model was not sure either
    "failed",  # the stronger model gave no answer, or the ledger could not take the hold
    "budget",  # a budget does not allow the audit now
    "barred",  # no stronger model may be asked now: health, rate limits, what the request and its key allow
    "dropped",  # too much waited already
]
_NO_VERDICT: tuple[Result, ...] = ("unclear", "failed", "budget", "barred")


@dataclass(frozen=True, slots=True)
class AuditState:
    """What audits of chat found so far: the controller, how many samples were dropped because too much waited, and how
    many audits brought no verdict."""

    drift: drift.Drift
    dropped: int
    without_verdict: int


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Counts since the start, for metrics: upstream calls, results of audits, and results of probes (free)."""

    calls: Mapping[AuditKind, int]
    results: Mapping[tuple[AuditKind, Result], int]
    probes: Mapping[tuple[AuditKind, Result], int]


class Audits:
    """The `AuditSink` of a running router. `start` it inside the event loop and `stop` it when done.

    `draw` gives numbers in [0, 1); `on_revoked` is called once, when audits contradict a threshold in use;
    `store_label` stores a label durably, in a thread.
    """

    def __init__(
        self,
        draw: Callable[[], float],
        on_revoked: Callable[[AuditKind, drift.Drift], None],
        store_label: Callable[[LabelRecord], None],
    ) -> None:
        self._draw = draw
        self._store_label = store_label
        self._queue: SampleQueue[AuditSample] = SampleQueue("audits", "audit", _size)
        self._thresholds: dict[AuditKind, AuditedThreshold] = {
            "chat": AuditedThreshold("chat", lambda state: on_revoked("chat", state)),
            "document": AuditedThreshold("document", lambda state: on_revoked("document", state)),
        }
        self._calls: Counter[AuditKind] = Counter()
        self._results: Counter[tuple[AuditKind, Result]] = Counter()
        self._probes: Counter[tuple[AuditKind, Result]] = Counter()

    @property
    def state(self) -> AuditState:
        """What audits of chat found so far."""
        without_verdict = sum(self._results["chat", result] for result in _NO_VERDICT)
        return AuditState(self._thresholds["chat"].drift, self._results["chat", "dropped"], without_verdict)

    @property
    def counts(self) -> AuditCounts:
        """Counts of audits of chat and of documents since the start."""
        return AuditCounts(dict(self._calls), dict(self._results), dict(self._probes))

    def threshold_states(self, config: ActiveConfig) -> tuple[ThresholdState, ...]:
        """The thresholds for which an answer was judged already."""
        states = (threshold.state(config) for threshold in self._thresholds.values())
        return tuple(state for state in states if state is not None)

    # what the exchange asks

    def threshold(self, kind: AuditKind, config: ActiveConfig, configured: float) -> float:
        """The least confidence with which a local answer is accepted: the configured one, as audits moved it."""
        return self._thresholds[kind].threshold(config, configured)

    def draws_chat(self, config: ActiveConfig) -> bool:
        """Draw whether a local answer that was accepted is audited."""
        return bool(config.policy.confidence.escalate_to) and self._draws(config)

    def draws_document(self, config: ActiveConfig, reading: LocalReading) -> bool:
        """Draw whether the local reading of a document that has its answer is audited.

        If the external model read the document anyway, that is its audit, for free.
        """
        if reading.used:
            return self._draws(config)
        threshold = self._thresholds["document"]
        if not threshold.is_probe(config, reading.threshold, reading.scored.confidence):
            return False
        if reading.external is None:
            return self._draws(config)
        self._probes["document", "agreed" if reading.external.right else "disagreed"] += 1
        threshold.observe(config, reading.threshold, wrong=not reading.external.right, accepted=False)
        return False

    def is_probe(self, config: ActiveConfig, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is escalated, is to be compared with its better answer."""
        return self._thresholds["chat"].is_probe(config, config.policy.confidence.threshold, confidence)

    def observe_probe(self, config: ActiveConfig, draft: str, better: str) -> None:
        """Compare a probe with its better answer."""
        right = agree(draft, better)
        self._probes["chat", "agreed" if right else "disagreed"] += 1
        self._thresholds["chat"].observe(config, config.policy.confidence.threshold, wrong=not right, accepted=False)

    def _draws(self, config: ActiveConfig) -> bool:
        share = config.scoring.audit_share
        return share > 0 and self._draw() < share

    def offer(self, sample: AuditSample) -> None:
        """Audit an answer that the client got, unless too much waits already. Never waits."""
        if not sample.facts.privacy.may_leave:
            return
        if not self._queue.offer(sample):
            self._results[_kind(sample), "dropped"] += 1

    # the worker

    def start(self, services: Services) -> None:
        """Start the worker."""
        self._queue.start(1, partial(self._audited, services))

    async def stop(self) -> None:
        """Stop the worker. The audit under way ends as interrupted, those that wait are forgotten."""
        await self._queue.stop()

    async def settled(self) -> None:
        """Wait until no sample waits (for tests)."""
        await self._queue.settled()

    async def _audited(self, services: Services, sample: AuditSample) -> None:
        result: Result = "failed"
        try:
            result = await self._audit(services, sample)
        finally:
            self._results[_kind(sample), result] += 1

    async def _audit(self, services: Services, sample: AuditSample) -> Result:
        facts = await renewed(services, sample.facts, sample.raw)  # it has waited
        if facts is None:
            return "barred"
        config = under_rules(services, services.config(), facts)
        sample = replace(sample, facts=replace(facts, stream=False))
        policy = config.policy
        if sample.document is not None:
            judges = tuple(name for name in sample.document.judges if name in policy.backends)
            policy = replace(policy, confidence=replace(policy.confidence, escalate_to=judges))
        decision = decide_escalation(sample.facts, caller_signals(services, config, sample.facts), policy)
        if not decision.candidates:
            return "budget" if "budget" in decision.reasons else "barred"
        judge = decision.candidates[0]
        attempt = await open_again(services, config, sample.facts, judge, "audit", sample.attempt_no)
        if isinstance(attempt, NotOpened):
            return _NOT_OPENED[attempt.code]
        self._calls[_kind(sample)] += 1
        reply = await _ask(config, sample, attempt)
        if reply.outcome.kind != "ok":
            return "failed"
        comparison = _compare(sample, reply.answer)
        if comparison is None:
            return "unclear"
        await self._learn(services, config, sample, comparison, judge.backend.name)
        return "agreed" if comparison.right else "disagreed"

    async def _learn(
        self, services: Services, config: ActiveConfig, sample: AuditSample, comparison: DocumentComparison, judge: str
    ) -> None:
        """Move the threshold, and store a label if the answer was judged whole."""
        document = sample.document
        configured = config.policy.confidence.threshold if document is None else document.threshold
        accepted = document is None or document.used
        self._thresholds[_kind(sample)].observe(config, configured, wrong=not comparison.right, accepted=accepted)
        if sample.scored is None:
            return
        label = _label(sample.facts.request_id, sample.scored, comparison, judge, int(services.wall() * 1000))
        try:
            await LEDGER_CALLS.run(self._store_label, label)
        except LedgerError as error:
            log.warning("the label of an audit was not stored: %s", error)


_NOT_OPENED: Mapping[str, Result] = {"budget": "budget", "ledger": "failed", "backlog": "barred"}


async def _ask(config: ActiveConfig, sample: AuditSample, attempt: UpstreamAttempt) -> FetchedAnswer:
    """The stronger model's whole answer. The attempt is closed when this returns."""
    outcome = INTERRUPTED
    try:
        reply = await ask_again(config, sample.facts, sample.raw, sample.body, attempt)
        outcome = reply.outcome
        return reply
    finally:
        attempt.close(outcome, discarded=outcome.kind == "ok")


def _size(sample: AuditSample) -> int:
    return len(sample.raw) + len(sample.answer)


def _kind(sample: AuditSample) -> AuditKind:
    return "chat" if sample.document is None else "document"


def _compare(sample: AuditSample, better: Mapping[str, Any]) -> DocumentComparison | None:
    if sample.document is not None:
        return sample.document.compare(better)
    return DocumentComparison(agree(sample.answer, answer_text(better["choices"][0])), {})


def _label(
    request_id: str, scored: ScoredAnswer, comparison: DocumentComparison, judge: str, epoch_ms: int
) -> LabelRecord:
    return LabelRecord(
        request_id,
        epoch_ms,
        task=scored.task,
        backend=scored.backend,
        model=scored.model,
        judge=judge,
        confidence=scored.confidence,
        right=comparison.right,
        scores=orjson.dumps(dict(scored.scores)).decode(),
        fields=orjson.dumps(dict(comparison.fields)).decode(),
    )
