"""Holds: what an attempt sets aside before it is made, how it ended, and the rows that say so. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_router.core.money.tariff import Tariff, Usage, price
from spillway_router.core.routing.model import Backend, DecisionKind, RequestFacts
from spillway_router.ledger.entries import Entry, Status


@dataclass(frozen=True, slots=True)
class AttemptReason:
    """Under which decision, and for which reasons, an attempt is made."""

    kind: DecisionKind
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """An attempt that may be made: whose it is, and the money set aside for it.

    `reserved_nano` is 0 and `stored` False for attempts at a backend without a price, which need no hold.
    """

    facts: RequestFacts
    backend: Backend
    why: AttemptReason
    attempt_no: int
    ts: int
    """Epoch milliseconds; the periods of it bear the cost."""
    reserved_nano: int = 0
    stored: bool = False


@dataclass(frozen=True, slots=True)
class HoldRefused:
    """No hold: the budget says no (`code` budget) or the ledger can't promise durability (`code` ledger)."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """How an attempt ended, for its charge. `usage` None: not known, and a paid attempt is charged its bound."""

    status: Status
    usage: Usage | None = None
    billed: bool = True
    confidence: float | None = None
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    """From sending to its end: what a price per second counts."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Makes the rows of this process's attempts. `wall` is epoch seconds."""

    router_id: str
    coefficients: WorkCoefficients
    wall: Callable[[], float]

    def reserved(self, hold: Hold) -> Entry:
        """The row that sets the bound aside."""
        return self._begun("reserved", hold, hold.reserved_nano)

    def released(self, hold: Hold) -> Entry:
        """The row that gives it back."""
        return self._begun("released", hold, 0)

    def closing(self, hold: Hold, backend: Backend, ended: AttemptResult) -> Entry:
        """The row of an attempt that was made: what it cost, or released if it cost nothing."""
        usage, tariff = ended.usage, backend.tariff
        amount = gpu_us = 0
        if tariff is not None and ended.billed:
            amount = _amount(hold, tariff, backend.longest_s, ended)
        elif backend.local and usage is not None:
            gpu_us = work_share_us(
                usage.uncached_tokens, usage.prompt_tokens, usage.completion_tokens, self.coefficients
            )
        known = _NO_USAGE if usage is None else usage
        facts, caller, why = hold.facts, hold.facts.caller, hold.why
        # By position: one is made for every request, and with names it takes three times as long.
        return Entry(
            "charged" if amount or backend.local or ended.billed else "released",
            facts.request_id,
            hold.attempt_no,
            int(self.wall() * 1000),
            backend.name,
            backend.provider,
            backend.model,
            backend.local,
            caller.key_id,
            caller.tier,
            why.kind,
            ",".join(ended.reasons or why.reasons),
            ended.status if usage is not None or not amount else "unknown",
            known.prompt_tokens,
            known.completion_tokens,
            known.cached_tokens,
            known.reasoning_tokens,
            gpu_us,
            amount,
            0,
            "" if tariff is None else tariff.ref,
            ended.confidence,
            facts.task,
            facts.document,
            self.router_id,
        )

    def _begun(self, kind: Literal["reserved", "released"], hold: Hold, reserved_nano: int) -> Entry:
        backend, caller = hold.backend, hold.facts.caller
        return Entry(
            kind=kind,
            request_id=hold.facts.request_id,
            attempt_no=hold.attempt_no,
            ts=hold.ts,
            backend=backend.name,
            provider=backend.provider,
            model=backend.model,
            local=backend.local,
            key_id=caller.key_id,
            tier=caller.tier,
            decision=hold.why.kind,
            reasons=",".join(hold.why.reasons),
            reserved_nano=reserved_nano,
            tariff_ref="" if backend.tariff is None else backend.tariff.ref,
            task=hold.facts.task,
            document=hold.facts.document,
            router_id=self.router_id,
        )


_NO_USAGE = Usage(0, 0)


def _amount(hold: Hold, tariff: Tariff, longest_s: int, ended: AttemptResult) -> int:
    """Nano-dollars of a billed attempt: its bound where tokens cost something and nobody knows how many there were."""
    if ended.usage is None and tariff.by_tokens:
        return hold.reserved_nano
    if not tariff.per_second:
        return price(ended.usage or _NO_USAGE, tariff)
    # The attempt was cut at `longest_s`; what the clock shows beyond it is our own lateness. Whole milliseconds, up.
    milliseconds = math.ceil(min(ended.seconds, longest_s) * 1000)
    return price(ended.usage or _NO_USAGE, tariff, Decimal(milliseconds).scaleb(-3))
