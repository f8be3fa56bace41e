"""Audits: a random share of local answers is asked of a stronger model too, to see whether confidence keeps its word.

What was drawn waits in a bounded queue (full: the draw is dropped and counted) for one worker, behind the client's back
and after its answer. The stronger model is paid from the budget as an attempt of its own, with the decision `audit`;
its answer is compared (core/confidence/agreement.py; documents compare field by field), thrown away, and moves the
threshold (gates.py). Nothing private, nothing pinned and nothing that asks for local only is ever audited, as the
same filters decide as for an escalation. What an audit found of an answer that was judged whole is kept as a label,
for `spillway calibrate`.

Where audits closed the gate, nothing is kept and so nothing can be drawn. Whole answers that were escalated have their
better answer already: the surest of those are compared for free, until it is safe to open the gate again. Of documents
that a parser answered instead, the same share is audited as of those kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from spillway_router.aio.tasks import end
from spillway_router.core.confidence import drift
from spillway_router.core.confidence.agreement import agree
from spillway_router.core.frozen import dataclass
from spillway_router.core.routing.model import Candidate, Outcome
from spillway_router.core.routing.policy import decide_escalation
from spillway_router.http_client.connection import TransportError
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.holds import AttemptReason, HoldRefused
from spillway_router.ledger.tables.labels import LabelRecord
from spillway_router.providers.logprobs import answer_text
from spillway_router.providers.streams import MalformedObject, parse_object
from spillway_router.proxy.audits.thresholds import AuditedThreshold, Kind, ThresholdState
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.attempt import UpstreamAttempt, prepare
from spillway_router.proxy.exchange.audit_sample import AuditSample, DocumentComparison, LocalReading, ScoredAnswer
from spillway_router.proxy.exchange.outcomes import transport_outcome
from spillway_router.proxy.request import body as wire

if TYPE_CHECKING:
    from spillway_router.proxy.exchange.services import Services

log = logging.getLogger("spillway.audits")

MOST_WAITING = 64
MOST_WAITING_BYTES = 16 * 1024 * 1024

Result = Literal[
    "agreed",
    "disagreed",
    "unclear",  # the better answer could not be read, or its model was not sure either
    "failed",  # it was asked and brought no answer, or the ledger could not take its hold
    "budget",  # a budget does not allow it now
    "barred",  # no stronger model may be asked now: health, rate limits, what the request allows
    "dropped",  # too much waited already
]
_NO_VERDICT: tuple[Result, ...] = ("unclear", "failed", "budget", "barred")


@dataclass(frozen=True, slots=True)
class AuditState:
    """What audits of chat found so far: the controller, how many draws were dropped because too much waited, and how
    many brought no verdict."""

    drift: drift.Drift
    dropped: int
    unasked: int


@dataclass(frozen=True, slots=True)
class AuditCounts:
    """Since the start, for metrics: calls that were made, how audits ended, and what probes (free of charge) said."""

    asked: Mapping[Kind, int]
    ended: Mapping[tuple[Kind, Result], int]
    probes: Mapping[tuple[Kind, Result], int]


class Audits:
    """See the module docstring. `draw` gives numbers in [0, 1); `on_revoked` is told once, when audits speak against
    a threshold in use; `keep` stores a label durably, in a thread. `start` inside the event loop, `stop` when done."""

    def __init__(
        self,
        draw: Callable[[], float],
        on_revoked: Callable[[Kind, drift.Drift], None],
        keep: Callable[[LabelRecord], None],
    ) -> None:
        self._draw = draw
        self._keep = keep
        self._services: Services | None = None
        self._waiting: asyncio.Queue[AuditSample] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0
        self._chat = AuditedThreshold("chat", lambda d: on_revoked("chat", d))
        self._documents = AuditedThreshold("document", lambda d: on_revoked("document", d))
        self._asked: Counter[Kind] = Counter()
        self._ended: Counter[tuple[Kind, Result]] = Counter()
        self._probes: Counter[tuple[Kind, Result]] = Counter()
        self._worker: asyncio.Task[None] | None = None

    @property
    def state(self) -> AuditState:
        """What audits of chat found so far."""
        unasked = sum(self._ended["chat", result] for result in _NO_VERDICT)
        return AuditState(self._chat.drift, self._ended["chat", "dropped"], unasked)

    @property
    def counts(self) -> AuditCounts:
        """Of both kinds."""
        return AuditCounts(dict(self._asked), dict(self._ended), dict(self._probes))

    def gates(self, live: ActiveConfig) -> tuple[ThresholdState, ...]:
        """The gates that have seen an answer, as they stand."""
        found = (gate.state(live) for gate in (self._chat, self._documents))
        return tuple(state for state in found if state is not None)

    # chat

    def threshold(self, live: ActiveConfig) -> float:
        """The threshold in use: the configured one, moved by what audits found of it."""
        return self._chat.threshold(live, live.policy.confidence.threshold)

    def drawn(self, live: ActiveConfig) -> bool:
        """True if a local answer that is kept is to be audited."""
        return bool(live.policy.confidence.escalate_to) and self._draws(live)

    def probes(self, live: ActiveConfig, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is escalated, is to be compared with its better one."""
        return self._chat.is_probe(live, live.policy.confidence.threshold, confidence)

    def probed(self, live: ActiveConfig, draft: str, better: str) -> None:
        """A probe and its better answer."""
        right = agree(draft, better)
        self._probes["chat", "agreed" if right else "disagreed"] += 1
        self._chat.observe(live, live.policy.confidence.threshold, wrong=not right, kept=False)

    # documents

    def bar(self, live: ActiveConfig, configured: float) -> float:
        """The least confidence of a document's local answer: the configured one, moved by what audits found of it."""
        return self._documents.threshold(live, configured)

    def wants(self, live: ActiveConfig, reading: LocalReading) -> bool:
        """A document has its answer: True if its local reading is to be audited. Where the external model read it
        anyway, that is its audit, for free."""
        if reading.used:
            return self._draws(live)
        if not self._documents.is_probe(live, reading.threshold, reading.scored.confidence):
            return False
        if reading.external is None:
            return self._draws(live)
        self._probes["document", "agreed" if reading.external.right else "disagreed"] += 1
        self._documents.observe(live, reading.threshold, wrong=not reading.external.right, kept=False)
        return False

    # both

    def _draws(self, live: ActiveConfig) -> bool:
        share = live.scoring.audit_share
        return share > 0 and self._draw() < share

    def offer(self, case: AuditSample) -> None:
        """Audit an answer that the client got. Never waits."""
        if not case.facts.privacy.may_leave:
            return
        size = len(case.raw) + len(case.answer)
        if self._waiting.full() or self._bytes + size > MOST_WAITING_BYTES:
            self._ended[_kind(case), "dropped"] += 1
            return
        self._bytes += size
        self._waiting.put_nowait(case)

    def start(self, services: Services) -> None:
        """Begin to audit."""
        self._services = services
        self._worker = asyncio.get_running_loop().create_task(self._forever(services), name="audits")

    async def stop(self) -> None:
        """Stop; the audit under way ends as one that was broken off, those that wait are forgotten."""
        task, self._worker = self._worker, None
        await end(task)

    async def settled(self) -> None:
        """Until nothing waits (for tests)."""
        await self._waiting.join()

    async def _forever(self, s: Services) -> None:
        while True:
            case = await self._waiting.get()
            self._bytes -= len(case.raw) + len(case.answer)
            result: Result = "failed"
            try:
                result = await self._audit(s, case)
            except Exception:
                log.exception("an audit failed unexpectedly")
            finally:
                self._ended[_kind(case), result] += 1
                self._waiting.task_done()

    async def _audit(self, s: Services, case: AuditSample) -> Result:
        live = s.live()
        facts = replace(case.facts, stream=False)
        policy = live.policy
        if case.document is not None:
            judges = tuple(name for name in case.document.judges if name in policy.backends)
            policy = replace(policy, confidence=replace(policy.confidence, escalate_to=judges))
        decision = decide_escalation(facts, s.signals(live, facts), policy)
        if not decision.candidates:
            return "budget" if "budget" in decision.reasons else "barred"
        judge = decision.candidates[0]
        better = await self._ask(s, live, replace(case, facts=facts), judge)
        if isinstance(better, str):
            return better
        found = _compared(case, better)
        if found is None:
            return "unclear"
        await self._learn(s, live, case, found, judge.backend.name)
        return "agreed" if found.right else "disagreed"

    async def _learn(
        self, s: Services, live: ActiveConfig, case: AuditSample, found: DocumentComparison, judge: str
    ) -> None:
        document = case.document
        if document is None:
            self._chat.observe(live, live.policy.confidence.threshold, wrong=not found.right, kept=True)
        else:
            self._documents.observe(live, document.threshold, wrong=not found.right, kept=document.used)
        if case.scored is None:
            return
        try:
            label = _label(case.facts.request_id, case.scored, found, judge, int(s.wall() * 1000))
            await asyncio.to_thread(self._keep, label)
        except LedgerError as error:
            log.warning("the label of an audit was not kept: %s", error)

    async def _ask(
        self, s: Services, live: ActiveConfig, case: AuditSample, candidate: Candidate
    ) -> Mapping[str, Any] | Result:
        """The stronger model's whole answer, or why there is none."""
        channel = live.channels[candidate.backend.name]
        why = AttemptReason("audit", ("audit",))
        hold = await s.accounts.hold(case.facts, channel.backend, why, case.attempt_no, candidate.cost_bound_nano)
        if isinstance(hold, HoldRefused):
            return "budget" if hold.code == "budget" else "failed"
        trip = s.board.sent(candidate, case.facts.prompt_bytes, live.policy.slo.ttft_s, s.clock())
        if trip is None:
            s.accounts.release(hold)
            return "barred"
        call = UpstreamAttempt((s.accounts, s.board, s.clock), channel, candidate, hold, trip, s.clock())
        outcome = Outcome("cancelled", billed=True, detail="the router stopped")
        self._asked[_kind(case)] += 1
        try:
            raw = wire.edit(case.raw, case.body.keys(), {"stream": False}, frozenset({"stream_options"}))
            body = {**case.body, "stream": False}
            body.pop("stream_options", None)
            upstream = prepare(case.facts, raw, body, channel)
            head = channel.pool.head(channel.provider.path(case.facts.endpoint), len(upstream.body), call.label())
            reply = await channel.pool.call(head, upstream.body, live.limits.answer_s, live.limits.answer_bytes)
            outcome = channel.provider.outcome(reply, s.wall())
            if outcome.kind != "ok":
                return "failed"
            parsed = parse_object(reply.body)
            flaw = (
                parsed.flaw
                if isinstance(parsed, MalformedObject)
                else channel.provider.flaw(case.facts.endpoint, parsed)
            )
            if isinstance(parsed, MalformedObject) or flaw is not None:
                outcome = Outcome("failed", reply.status, str(flaw), billed=True)
                return "failed"
            outcome = Outcome("ok", reply.status, usage=channel.provider.usage(parsed))
            return parsed
        except TransportError as error:
            outcome = transport_outcome(error)
            return "failed"
        finally:
            call.close(outcome, discarded=outcome.kind == "ok")


def _kind(case: AuditSample) -> Kind:
    return "chat" if case.document is None else "document"


def _compared(case: AuditSample, better: Mapping[str, Any]) -> DocumentComparison | None:
    if case.document is not None:
        return case.document.compare(better)
    return DocumentComparison(agree(case.answer, answer_text(better["choices"][0])), {})


def _label(request_id: str, scored: ScoredAnswer, found: DocumentComparison, judge: str, ts: int) -> LabelRecord:
    return LabelRecord(
        request_id,
        ts,
        scored.task,
        scored.backend,
        scored.model,
        judge,
        scored.confidence,
        found.right,
        orjson.dumps(dict(scored.scores)).decode(),
        orjson.dumps(dict(found.fields)).decode(),
    )
