"""Accounts: the money side of one attempt, from hold to charge.

A paid attempt takes a hold of its upper bound first: in the budgets' state at once (so that concurrent requests can't
overshoot) and then durably on disk, before a byte leaves. When the attempt ends it is settled to what it cost, or
released if it cost nothing. A local attempt has only its charge row: 0 nano-dollars and its GPU work share.

Free attempts don't wait for a broken disk: their rows are lost with an alarm (`lost_rows`), their answers are not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spillway_router.core import budget
from spillway_router.core.attribution import WorkCoefficients, work_share_us
from spillway_router.core.budget import BudgetAlert, BudgetLine, BudgetRefused, BudgetState, Reservation, Spender
from spillway_router.core.model import Backend, DecisionKind, RequestFacts
from spillway_router.core.tariff import Usage, price, usd
from spillway_router.ledger.base import CapReached, Ledger, LedgerError
from spillway_router.ledger.entries import Entry, Status
from spillway_router.ledger.writer import LedgerWriter

Durable = asyncio.Future[CapReached | None]
"""Done when a row is on disk; raises LedgerError."""


@dataclass(frozen=True, slots=True)
class Why:
    """Under which decision, and for which reasons, an attempt is made."""

    kind: DecisionKind
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """Money set aside for one attempt; `reserved_nano` is 0 and `reservation` None for free attempts."""

    entry: Entry
    reserved_nano: int
    reservation: Reservation | None


@dataclass(frozen=True, slots=True)
class HoldRefused:
    """No hold: the budget says no (`code` budget) or the ledger can't promise durability (`code` ledger)."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, for its charge. `usage` None: not known, and a paid attempt is charged its bound."""

    status: Status
    usage: Usage | None = None
    billed: bool = True
    confidence: float | None = None
    reasons: tuple[str, ...] = ()


class Accounts:
    """Holds and charges for all requests of this process."""

    def __init__(
        self,
        writer: LedgerWriter,
        lines: Sequence[BudgetLine],
        coefficients: WorkCoefficients,
        wall: Callable[[], float],
        on_alert: Callable[[BudgetAlert], None],
    ) -> None:
        self._writer = writer
        self._wall = wall
        self._coefficients = coefficients
        self._on_alert = on_alert
        self._state = budget.opening(lines, wall())
        self.lost_rows = 0

    def load(self, ledger: Ledger, lines: Sequence[BudgetLine]) -> None:
        """Take budgets from a configuration, with what the ledger says of their current periods."""
        now = self._wall()
        balances = {}
        for line in lines:
            start = budget.period_start(line.period, now)
            found = ledger.balance(line.scope, line.period, start * 1000)
            balances[line.key] = budget.LineBalance(start, found.spent_nano, found.reserved_nano)
        if self._state.lines:
            self._state = budget.with_lines(self._state, lines, now, balances)
        else:
            self._state = budget.opening(lines, now, balances)

    @property
    def has_budgets(self) -> bool:
        """True if any cap is configured."""
        return bool(self._state.lines)

    def headroom(self, facts: RequestFacts, backend: Backend) -> int | None:
        """Nano-dollars this caller may still spend at this backend; None where no budget covers it."""
        caller = facts.caller
        return budget.headroom(self._state, Spender(backend.name, caller.key_id, caller.tier), self._wall())

    async def hold(
        self, facts: RequestFacts, backend: Backend, why: Why, attempt_no: int, bound_nano: int
    ) -> Hold | HoldRefused:
        """Set the bound aside. When this returns a Hold of a paid attempt, its row is on disk."""
        entry = Entry(
            kind="reserved",
            request_id=facts.request_id,
            attempt_no=attempt_no,
            ts=int(self._wall() * 1000),
            backend=backend.name,
            provider=backend.provider,
            model=backend.model,
            local=backend.local,
            key_id=facts.caller.key_id,
            tier=facts.caller.tier,
            decision=why.kind,
            reasons=",".join(why.reasons),
        )
        if backend.tariff is None:
            return Hold(entry, 0, None)
        spender = Spender(backend.name, facts.caller.key_id, facts.caller.tier)
        before = self._state
        self._state, reservation = budget.try_reserve(before, spender, bound_nano, self._wall())
        if isinstance(reservation, BudgetRefused):
            return HoldRefused("budget", _refusal_text(reservation))
        self._alert(before)
        entry = replace(entry, reserved_nano=bound_nano, tariff_ref=backend.tariff.ref)
        hold = Hold(entry, bound_nano, reservation)
        try:
            await self._writer.submit((entry,))
        except LedgerError as error:
            self._state = budget.release(self._state, reservation)
            return HoldRefused("ledger", f"paid calls are paused: {error}")
        except BaseException:
            # The client left while the row was on its way: close the hold whether or not it got there.
            self._release_soon(hold)
            raise
        return hold

    def settle(self, hold: Hold, backend: Backend, ended: Ended) -> tuple[int, Durable | None]:
        """Charge the attempt; returns nano-dollars and a future that is done when the row is on disk.

        Never waits, so a cleanup may call it. The future never raises here: a row that could not be stored is
        counted in `lost_rows` and told by the writer's health. None: it could not even be queued.
        """
        entry, amount = self.charge(hold, backend, ended)
        try:
            durable = self._writer.submit((entry,))
        except LedgerError:
            self.lost_rows += 1
            return amount, None
        durable.add_done_callback(self._count_lost)
        return amount, durable

    @staticmethod
    async def durable(row: Durable | None) -> None:
        """Until the row is on disk, or known to be lost."""
        if row is not None:
            with contextlib.suppress(LedgerError):
                await row

    def _count_lost(self, row: Durable) -> None:
        if not row.cancelled() and row.exception() is not None:
            self.lost_rows += 1

    def charge(self, hold: Hold, backend: Backend, ended: Ended) -> tuple[Entry, int]:
        """The closing entry of an attempt and its nano-dollars; the budgets know it from here on."""
        usage = ended.usage
        amount = gpu_us = 0
        if backend.tariff is not None and ended.billed:
            amount = hold.reserved_nano if usage is None else price(usage, backend.tariff)
        elif backend.local and usage is not None:
            gpu_us = work_share_us(
                usage.uncached_tokens, usage.prompt_tokens, usage.completion_tokens, self._coefficients
            )
        if hold.reservation is not None:
            before = self._state
            self._state = budget.settle(before, hold.reservation, amount)
            self._alert(before)
        known = usage or Usage(0, 0)
        begun = hold.entry
        closing = Entry(  # spelled out: dataclasses.replace costs three times as much, for every row
            kind="charged" if amount or backend.local or ended.billed else "released",
            request_id=begun.request_id,
            attempt_no=begun.attempt_no,
            ts=int(self._wall() * 1000),
            backend=begun.backend,
            provider=begun.provider,
            model=begun.model,
            local=begun.local,
            key_id=begun.key_id,
            tier=begun.tier,
            decision=begun.decision,
            reasons=",".join(ended.reasons) if ended.reasons else begun.reasons,
            status=ended.status if usage is not None or not amount else "unknown",
            prompt_tokens=known.prompt_tokens,
            completion_tokens=known.completion_tokens,
            cached_tokens=known.cached_tokens,
            reasoning_tokens=known.reasoning_tokens,
            gpu_us=gpu_us,
            amount_nano=amount,
            tariff_ref=begun.tariff_ref,
            confidence=ended.confidence,
            task=begun.task,
            document=begun.document,
        )
        return closing, amount

    def _release_soon(self, hold: Hold) -> None:
        if hold.reservation is not None:
            self._state = budget.release(self._state, hold.reservation)
        released = replace(hold.entry, kind="released", reserved_nano=0)
        try:
            self._writer.submit((released,)).add_done_callback(self._count_lost)
        except LedgerError:
            self.lost_rows += 1

    def _alert(self, before: BudgetState) -> None:
        if before.lines:
            for alert in budget.alerts(before, self._state):
                self._on_alert(alert)


def _refusal_text(refused: BudgetRefused) -> str:
    left = usd(max(0, refused.limit_nano - refused.taken_nano))
    wanted = usd(refused.requested_nano)
    return (
        f"The {refused.period} budget of {usd(refused.limit_nano)} USD for {refused.scope} has {left} USD left and "
        f"this request could cost {wanted} USD. Lower max_tokens, or raise the budget."
    )
