"""Audits: a random share of local answers is asked of a stronger model too, to see whether confidence keeps its word.

What was drawn waits in a bounded queue (full: the draw is dropped and counted) for one worker, behind the client's back
and after its answer. The stronger model is paid from the budget as an attempt of its own, with the decision `audit`;
its answer is compared (core/agreement.py), thrown away, and moves the threshold (core/drift.py). Nothing private,
nothing pinned and nothing that asks for local only is ever audited, as the same filters decide as for an escalation.

Where audits closed the gate, nothing is kept and so nothing can be drawn. Whole answers that were escalated have their
better answer already: the surest of those are compared for free, until it is safe to open the gate again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from spillway_router.core import drift
from spillway_router.core.agreement import agree
from spillway_router.core.model import Candidate, Outcome
from spillway_router.core.policy import decide_escalation
from spillway_router.ledger.accounts import HoldRefused, Why
from spillway_router.providers.connection import TransportError
from spillway_router.providers.logprobs import answer_text
from spillway_router.providers.streams import load
from spillway_router.proxy import wire
from spillway_router.proxy.attempt import Call, prepare
from spillway_router.proxy.case import Case
from spillway_router.proxy.outcomes import transport_outcome
from spillway_router.proxy.services import Live, Services
from spillway_router.tasks import end

log = logging.getLogger("spillway.audits")

MOST_WAITING = 64
MOST_WAITING_BYTES = 16 * 1024 * 1024
ALPHA = 0.05
"""P(wrong | kept local) that the threshold is moved towards where no certificate promises another."""
SCALE = tuple(step / 1000 for step in range(1001))
"""Reference quantiles where a calibration brings none: theta is then the threshold itself."""


@dataclass(frozen=True, slots=True)
class AuditState:
    """What audits found so far: the controller, how many draws were dropped because too much waited, and how many could
    not be asked."""

    drift: drift.Drift
    dropped: int
    unasked: int


class Audits:
    """See the module docstring. `draw` gives numbers in [0, 1); `on_revoked` is told once, when audits speak against
    the threshold in use. `start` inside the event loop, `stop` when done."""

    def __init__(self, draw: Callable[[], float], on_revoked: Callable[[drift.Drift], None]) -> None:
        self._draw = draw
        self._on_revoked = on_revoked
        self._services: Services | None = None
        self._waiting: asyncio.Queue[Case] = asyncio.Queue(MOST_WAITING)
        self._bytes = 0
        self._started_from: float | None = None
        self._drift = drift.Drift(0.0)
        self._dropped = self._unasked = 0
        self._worker: asyncio.Task[None] | None = None

    @property
    def state(self) -> AuditState:
        """What audits found so far."""
        return AuditState(self._drift, self._dropped, self._unasked)

    def threshold(self, live: Live) -> float:
        """The threshold in use: the configured one, moved by what audits found of it."""
        own = live.policy.confidence.threshold
        if not live.scoring.audit_share:
            return own
        if self._started_from != own:
            self._started_from, self._drift = own, drift.begin(own, _reference(live))
        return drift.threshold(self._drift, _terms(live), own, _reference(live))

    def drawn(self, live: Live) -> bool:
        """True if a local answer that is kept is to be audited."""
        share = live.scoring.audit_share
        return share > 0 and bool(live.policy.confidence.escalate_to) and self._draw() < share

    def probes(self, live: Live, confidence: float | None) -> bool:
        """True if an answer of this confidence, which is escalated, is to be compared with its better one."""
        if not live.scoring.audit_share or confidence is None:
            return False
        self.threshold(live)
        return drift.is_probe(self._drift, confidence, _terms(live), _reference(live))

    def probed(self, live: Live, draft: str, better: str) -> None:
        """A probe and its better answer."""
        self._observe(live, wrong=not agree(draft, better), kept=False)

    def offer(self, case: Case) -> None:
        """Audit an answer that the client got. Never waits."""
        if not case.facts.privacy.may_leave:
            return
        size = len(case.raw) + len(case.answer)
        if self._waiting.full() or self._bytes + size > MOST_WAITING_BYTES:
            self._dropped += 1
            return
        self._bytes += size
        self._waiting.put_nowait(case)

    def start(self, services: Services) -> None:
        """Begin to audit."""
        self._services = services
        self._worker = asyncio.get_running_loop().create_task(self._forever(), name="audits")

    async def stop(self) -> None:
        """Stop; the audit under way ends as one that was broken off, those that wait are forgotten."""
        task, self._worker = self._worker, None
        await end(task)

    async def settled(self) -> None:
        """Until nothing waits (for tests)."""
        await self._waiting.join()

    async def _forever(self) -> None:
        while True:
            case = await self._waiting.get()
            self._bytes -= len(case.raw) + len(case.answer)
            try:
                await self._audit(case)
            except Exception:
                log.exception("an audit failed unexpectedly")
            finally:
                self._waiting.task_done()

    async def _audit(self, case: Case) -> None:
        s = self._services
        assert s is not None
        live = s.live()
        facts = replace(case.facts, stream=False)
        decision = decide_escalation(facts, s.signals(live, facts), live.policy)
        if not decision.candidates:
            self._unasked += 1
            return
        better = await self._ask(s, live, replace(case, facts=facts), decision.candidates[0])
        if better is None:
            self._unasked += 1
            return
        self._observe(live, wrong=not agree(case.answer, better))

    async def _ask(self, s: Services, live: Live, case: Case, candidate: Candidate) -> str | None:
        """The stronger model's answer; None if there is none."""
        channel = live.channels[candidate.backend.name]
        why = Why("audit", ("audit",))
        hold = await s.accounts.hold(case.facts, channel.backend, why, case.attempt_no, candidate.cost_bound_nano)
        if isinstance(hold, HoldRefused):
            return None
        trip = s.board.sent(candidate, case.facts.prompt_bytes, live.policy.slo.ttft_s, s.clock())
        if trip is None:
            s.accounts.release(hold)
            return None
        call = Call((s.accounts, s.board, s.clock), channel, candidate, hold, trip, s.clock())
        outcome = Outcome("cancelled", billed=True, detail="the router stopped")
        try:
            raw = wire.edit(case.raw, case.body.keys(), {"stream": False}, frozenset({"stream_options"}))
            body = {**case.body, "stream": False}
            body.pop("stream_options", None)
            upstream = prepare(case.facts, raw, body, channel)
            head = channel.pool.head(channel.provider.path(case.facts.endpoint), len(upstream.body), call.label())
            reply = await channel.pool.call(head, upstream.body, live.limits.answer_s, live.limits.answer_bytes)
            outcome = channel.provider.outcome(reply, s.wall())
            if outcome.kind != "ok":
                return None
            parsed = load(reply.body)
            flaw = parsed if isinstance(parsed, str) else channel.provider.flaw(case.facts.endpoint, parsed)
            if isinstance(parsed, str) or flaw is not None:
                outcome = Outcome("failed", reply.status, str(flaw), billed=True)
                return None
            outcome = Outcome("ok", reply.status, usage=channel.provider.usage(parsed))
            return answer_text(parsed["choices"][0])
        except TransportError as error:
            outcome = transport_outcome(error)
            return None
        finally:
            call.close(outcome, discarded=outcome.kind == "ok")

    def _observe(self, live: Live, *, wrong: bool, kept: bool = True) -> None:
        if not live.scoring.audit_share:
            return
        self.threshold(live)
        before = self._drift
        self._drift = drift.observe(before, wrong, _terms(live), kept=kept)
        if self._drift.revoked and not before.revoked:
            self._on_revoked(self._drift)


def _terms(live: Live) -> drift.Terms:
    calibration = live.scoring.calibration
    alpha = ALPHA if calibration is None else calibration.certificate.alpha
    start = drift.theta_of(live.policy.confidence.threshold, _reference(live))
    return drift.Terms(alpha, live.scoring.audit_share, start)


def _reference(live: Live) -> tuple[float, ...]:
    calibration = live.scoring.calibration
    return SCALE if calibration is None or len(calibration.reference) < 2 else calibration.reference
