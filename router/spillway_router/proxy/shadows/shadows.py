"""Shadows: a request that has its answer is decided on again under another policy, and asked again where wanted.

Samples wait in a bounded queue (when it is full a sample is dropped and counted) for a few workers. A dry shadow only
decides: its row in the ledger is that of an attempt which was never made. A shadow that asks makes an attempt of its
own, with the decision `shadow`, whose answer is compared with the client's (core/confidence/agreement.py) and thrown
away. It passes the same filters, holds and renewed verdict of privacy as any attempt; the money comes from its own
budget and counts in all others that cover the key. A local engine is asked only while nothing waits for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from spillway_router.aio.sample_queue import SampleQueue
from spillway_router.core.confidence.agreement import agree
from spillway_router.core.routing.experiments import Arm
from spillway_router.core.routing.fair_queue import ENGINE_WAIT_SHARE
from spillway_router.core.routing.model import Candidate, Outcome, RequestFacts
from spillway_router.core.routing.policy import decide
from spillway_router.ledger.holds import AttemptReason
from spillway_router.providers.logprobs import answer_text
from spillway_router.proxy.exchange.active_config import ActiveConfig
from spillway_router.proxy.exchange.asked_again import INTERRUPTED, ask_again, open_again
from spillway_router.proxy.exchange.attempt import NotOpened, UpstreamAttempt
from spillway_router.proxy.exchange.caller_signals import caller_signals
from spillway_router.proxy.exchange.departure import renewed
from spillway_router.proxy.exchange.ruling import under_shadow
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.exchange.shadow_sample import ShadowSample

WORKERS = 4
BUDGET_PAUSE_S = 60.0
"""How long a shadow asks nobody after its budget had no room."""
AGREES, DIFFERS = "agrees", "differs"
"""Reason tokens of a shadow's row: whether its answer says the same as the client's."""

Result = Literal[
    "agrees",
    "differs",
    "uncompared",  # the client got a stream, or an answer without text
    "decided",  # a dry shadow
    "failed",  # no answer came, or the ledger could not take the hold
    "budget",  # a budget does not allow it now
    "barred",  # nobody may be asked: privacy, rules, health, a key that is valid no more
    "busy",  # the engine has no time for it
    "dropped",  # too much waited already
    "gone",  # the experiment has ended in the meantime
]


@dataclass(frozen=True, slots=True)
class ShadowCounts:
    """Counts since the start: results by arm, and which backend answered against which one the shadow chose."""

    results: Mapping[tuple[str, Result], int]
    choices: Mapping[tuple[str, str, str], int]


class Shadows:
    """The `ShadowSink` of a running router. `start` it inside the event loop and `stop` it when done."""

    def __init__(self) -> None:
        self._queue: SampleQueue[ShadowSample] = SampleQueue("shadows", "background", _size)
        self._results: Counter[tuple[str, Result]] = Counter()
        self._choices: Counter[tuple[str, str, str]] = Counter()
        self._paused_until_s: dict[str, float] = {}

    @property
    def counts(self) -> ShadowCounts:
        """Counts since the start, for metrics."""
        return ShadowCounts(dict(self._results), dict(self._choices))

    def offer(self, sample: ShadowSample) -> None:
        """Take a request that has its answer, unless too much waits already. Never waits."""
        if not self._queue.offer(sample):
            self._results[sample.facts.experiment.partition("/")[0], "dropped"] += 1

    def start(self, services: Services) -> None:
        """Start the workers."""
        self._queue.start(WORKERS, partial(self._shadow, services))

    async def stop(self) -> None:
        """Stop the workers. What is under way ends as interrupted, what waits is forgotten."""
        await self._queue.stop()

    async def settled(self) -> None:
        """Wait until nothing waits (for tests)."""
        await self._queue.settled()

    async def _shadow(self, services: Services, sample: ShadowSample) -> None:
        facts = await renewed(services, sample.facts, sample.raw)  # it has waited
        if facts is None:
            self._results[sample.facts.experiment.partition("/")[0], "barred"] += 1
            return
        config = under_shadow(services, services.config(), facts)
        arm = None if config is None else config.policy.ruling.arm
        if config is None or arm is None:
            self._results[facts.experiment.partition("/")[0], "gone"] += 1
            return
        result: Result = "failed"
        try:
            result = await self._result(services, config, arm, sample, arm.in_shadow(facts))
        finally:
            self._results[arm.title, result] += 1

    async def _result(
        self, services: Services, config: ActiveConfig, arm: Arm, sample: ShadowSample, facts: RequestFacts
    ) -> Result:
        now_s = services.clock()
        if now_s < self._paused_until_s.get(arm.title, 0.0):
            return "budget"
        decision = decide(facts, caller_signals(services, config, facts), config.policy)
        if not decision.candidates:
            return "budget" if "budget" in decision.reasons else "barred"
        candidate = decision.candidates[0]
        self._choices[arm.title, sample.backend, candidate.backend.name] += 1
        if arm.shadow == "dry":
            kind = AttemptReason("shadow", ("shadow", "dry", decision.kind))
            await services.accounts.durable(
                services.accounts.note_unmade(facts, candidate.backend, kind, sample.attempt_no)
            )
            return "decided"
        if candidate.backend.local and _is_busy(services, config, candidate):
            return "busy"
        attempt = await open_again(services, config, facts, candidate, "shadow", sample.attempt_no)
        if isinstance(attempt, NotOpened):
            if attempt.code == "budget":
                self._paused_until_s[arm.title] = now_s + BUDGET_PAUSE_S
            return _NOT_OPENED[attempt.code]
        return await _compared(config, sample, facts, attempt)


_NOT_OPENED: Mapping[str, Result] = {"budget": "budget", "ledger": "failed", "backlog": "busy"}


async def _compared(
    config: ActiveConfig, sample: ShadowSample, facts: RequestFacts, attempt: UpstreamAttempt
) -> Result:
    """Return what became of the shadow's own answer. The attempt is closed when this returns."""
    outcome: Outcome = INTERRUPTED
    try:
        reply = await ask_again(config, facts, sample.raw, sample.body, attempt)
        outcome = reply.outcome
        if outcome.kind != "ok":
            return "failed"
        text = answer_text(reply.answer["choices"][0]) if facts.endpoint == "chat" else ""
        if not text or not sample.answer:
            return "uncompared"
        result: Result = "agrees" if agree(sample.answer, text) else "differs"
        attempt.findings = (AGREES if result == "agrees" else DIFFERS,)
        return result
    finally:
        attempt.close(outcome, discarded=outcome.kind == "ok")


def _is_busy(services: Services, config: ActiveConfig, candidate: Candidate) -> bool:
    waits = candidate.wait_s > ENGINE_WAIT_SHARE * config.policy.slo.ttft_s
    return waits or services.local_queues.count > 0


def _size(sample: ShadowSample) -> int:
    return len(sample.raw) + len(sample.answer or "")
