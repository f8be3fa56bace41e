"""Accounts: the money side of one attempt, from hold to charge.

A paid attempt takes a hold of its upper bound first: one write, which the database stores only if every cap that covers
the attempt has room for it, judged inside the transaction; it is on disk before a byte leaves. When the attempt ends it
is settled to what it cost, or released if it cost nothing. A local attempt has only its charge row: 0 nano-dollars and
its GPU work share.

What ends a hold is never given up while this process lives: it may be queued when nothing else can, and what the disk
refused is tried again (`retry`). If the process ends before, another one charges the bound (orphans.py).

Free attempts don't wait for a broken disk: their rows are lost with an alarm (`lost_rows`), their answers are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from spillway_router.core.frozen import dataclass
from spillway_router.core.money import budget, degrade
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.budget import AlertKey, BudgetAlert, BudgetLine, LineBalance, LineKey, Spender
from spillway_router.core.money.tariff import usd
from spillway_router.core.routing.model import Backend, RequestFacts
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError, LedgerError, LedgerFullError, LedgerUnavailableError
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold, HoldRefused, Rows
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import corrected, unknown_charge
from spillway_router.ledger.records import Cap, CapReached
from spillway_router.ledger.writer import LedgerWriter

Durable = asyncio.Future[CapReached | None]
"""Done when a row is on disk; raises LedgerError."""

MOST_COVERS = 10_000
MOST_OWED = 10_000
"""Closing entries that wait for the disk to come back; as many as calls can have been in flight when it broke."""


@dataclass(frozen=True, slots=True)
class _Cover:
    """The budgets that cover a spender: their lines, and these as caps in their current periods."""

    keys: tuple[LineKey, ...]
    caps: tuple[Cap, ...]


class Accounts:
    """Holds and charges for all requests of this process."""

    def __init__(
        self,
        writer: LedgerWriter,
        lines: Sequence[BudgetLine],
        coefficients: WorkCoefficients,
        wall: Callable[[], float],
        on_alert: Callable[[BudgetAlert], None],
        router_id: str = "",
    ) -> None:
        self._writer = writer
        self._wall = wall
        self._latest = 0.0
        self._on_alert = on_alert
        self._rows = Rows(router_id, coefficients, wall)
        self._told: set[AlertKey] = set()
        self._state = budget.opening(lines, wall())
        self._alerting = any(line.alert_at for line in lines)
        self._hour = 0
        self._covers: dict[tuple[str, str, str], _Cover] = {}
        """By backend, key and tier; good for one hour, as every period ends with an hour."""
        self._owed: dict[tuple[str, int, str], tuple[Entry, Hold]] = {}
        self.lost_rows = 0

    def set_coefficients(self, coefficients: WorkCoefficients) -> None:
        """Attribute GPU time by other coefficients, for attempts that end from now on."""
        self._rows = Rows(self._rows.router_id, coefficients, self._wall)

    def load(self, ledger: Ledger, lines: Sequence[BudgetLine]) -> None:
        """Take budgets from a configuration, with what the ledger says of their current periods."""
        now = self._now()
        self._state = budget.opening(lines, now, read_balances(ledger, lines, now))
        self._covers.clear()
        self._alerting = any(line.alert_at for line in self._state.lines)
        self._tell()

    async def refresh(self, ledger: Ledger) -> None:
        """Read the balances again, as other processes spend too. Raises LedgerUnavailableError."""
        if self._state.lines:
            now = self._now()
            found = await asyncio.to_thread(read_balances, ledger, self._state.lines, now)
            self._state = budget.refreshed(budget.rolled(self._state, now), found)
            self._tell()

    @property
    def has_budgets(self) -> bool:
        """True if any cap is configured."""
        return bool(self._state.lines)

    def headroom(self, facts: RequestFacts, backend: Backend) -> int | None:
        """Nano-dollars this caller may still spend at this backend, as far as known; None without a budget."""
        return budget.headroom(self._state, _spender(facts, backend), self._now())

    def standing(self) -> tuple[tuple[BudgetLine, LineBalance], ...]:
        """Every budget with its balance in the present period, as far as known."""
        state = budget.rolled(self._state, self._now())
        return tuple((line, state.balances[line.key]) for line in state.lines)

    def used(self, facts: RequestFacts) -> Mapping[LineKey, float]:
        """Share of each budget that is spent or held, of those that concern this caller, as far as known."""
        return degrade.shares_used(self._state, facts.caller.key_id, facts.caller.tier, self._now())

    async def hold(
        self, facts: RequestFacts, backend: Backend, why: AttemptReason, attempt_no: int, bound_nano: int
    ) -> Hold | HoldRefused:
        """Set the bound aside. When this returns a Hold of a paid attempt, its row is on disk."""
        now = self._now()
        if backend.tariff is None:
            self._writer.in_flight += 1
            return Hold(facts, backend, why, attempt_no, int(now * 1000))
        if not self._writer.may_spend:
            return HoldRefused("ledger", "paid calls are paused: the ledger can't promise to keep their cost")
        hold = Hold(facts, backend, why, attempt_no, int(now * 1000), bound_nano, stored=True)
        try:
            reached = await self._writer.submit((self._rows.reserved(hold),), self._cover(hold, now).caps, urgent=True)
        except LedgerError as error:
            if isinstance(error, LedgerUnavailableError):
                self._close(self._rows.released(hold), hold)  # it may be on disk: a commit whose answer was lost
            return HoldRefused("ledger", f"paid calls are paused: {error}")
        except BaseException:  # the client left while the row was on its way: close the hold, got there or not
            self._close(self._rows.released(hold), hold)
            raise
        if reached is not None:
            start = reached.cap.start_ms // 1000
            line = (reached.cap.scope, reached.cap.period)
            self._state = budget.taken_at_least(self._state, line, start, reached.taken_nano)
            return HoldRefused("budget", _refusal_text(reached, bound_nano))
        self._move(hold, reserved=bound_nano)
        self._writer.in_flight += 1
        return hold

    def release(self, hold: Hold) -> None:
        """Give a hold back whose attempt was never made. Never waits; nothing to do for a free attempt."""
        self._writer.in_flight -= 1
        if hold.stored:
            self._move(hold, reserved=-hold.reserved_nano)
            self._close(self._rows.released(hold), hold)

    def settle(self, hold: Hold, backend: Backend, ended: AttemptResult) -> tuple[int, Durable | None]:
        """Charge the attempt; returns nano-dollars and a future that is done when the row is on disk.

        Never waits, so a cleanup may call it. A row that could not be stored is counted in `lost_rows`, or kept for
        `retry` if it ends a hold, and told by the writer's health. None: it could not even be queued.
        """
        entry = self._rows.closing(hold, backend, ended)
        amount = entry.amount_nano
        self._writer.in_flight -= 1
        if hold.stored:
            self._move(hold, reserved=-hold.reserved_nano, spent=amount)
            return amount, self._close(entry, hold)
        try:
            return amount, self._writer.submit((entry,), on_failure=self._count_lost)
        except LedgerError:
            self.lost_rows += 1
            return amount, None

    @staticmethod
    async def durable(row: Durable | None) -> None:
        """Until the row is on disk, or known to be lost."""
        if row is not None:
            try:  # not contextlib.suppress: every request comes here
                await row
            except LedgerError:
                return

    def retry(self) -> None:
        """Queue again what ends a hold and could not be stored so far."""
        owed, self._owed = self._owed, {}
        for entry, hold in owed.values():
            self._close(entry, hold)

    @property
    def owed_rows(self) -> int:
        """Closing entries that wait for the disk."""
        return len(self._owed)

    def _now(self) -> float:
        """Epoch seconds that never go back, so that a hold and its caps are always of the same period."""
        self._latest = max(self._latest, self._wall())
        return self._latest

    def _close(self, entry: Entry, hold: Hold) -> Durable | None:
        """Queue an entry that ends a hold; what can't be stored now is owed."""
        try:
            return self._writer.submit(
                (entry,), closing=True, on_failure=lambda error: self._not_closed(entry, hold, error)
            )
        except LedgerFullError:
            self._owe(entry, hold)
        except LedgerError:
            self.lost_rows += 1  # the writer is closed: another process will charge the bound
        return None

    def _not_closed(self, entry: Entry, hold: Hold, error: LedgerError) -> None:
        if isinstance(error, LedgerUnavailableError):
            self._owe(entry, hold)
        elif isinstance(error, EntryConflictError):
            # Another process took us for dead and charged the bound. An adjustment of that stands: it is from the bill.
            if entry.kind != "adjusted":
                self._close(corrected(entry, hold.reserved_nano), hold)
        elif entry.kind == "charged" and entry.status != "unknown":
            # A cost beyond all numbers, out of a provider's nonsense: the hold ends at its bound.
            self._close(unknown_charge(self._rows.reserved(hold)), hold)
        else:
            self.lost_rows += 1

    def _owe(self, entry: Entry, hold: Hold) -> None:
        if len(self._owed) < MOST_OWED:
            self._owed[entry.key] = (entry, hold)
        else:
            self.lost_rows += 1

    def _count_lost(self, _error: LedgerError) -> None:
        self.lost_rows += 1

    def _cover(self, hold: Hold, now: float) -> _Cover:
        hour = int(now // 3600)
        if hour != self._hour or len(self._covers) > MOST_COVERS:
            self._hour = hour
            self._covers.clear()
            self._state = budget.rolled(self._state, now)
        caller = hold.facts.caller
        who = (hold.backend.name, caller.key_id, caller.tier)
        cover = self._covers.get(who)
        if cover is None:
            lines = budget.covering(self._state.lines, Spender(*who))
            caps = (Cap(x.scope, x.period, budget.period_start(x.period, now) * 1000, x.limit_nano) for x in lines)
            cover = self._covers[who] = _Cover(tuple(line.key for line in lines), tuple(caps))
        return cover

    def _move(self, hold: Hold, *, reserved: int, spent: int = 0) -> None:
        if self._state.lines and (keys := self._cover(hold, self._now()).keys):
            self._state = budget.moved(self._state, keys, hold.ts / 1000, spent=spent, reserved=reserved)
            self._tell()

    def _tell(self) -> None:
        if self._alerting:
            for alert in budget.alerts(self._state, self._told):
                self._told.add(alert.key)
                self._on_alert(alert)


def read_balances(ledger: Ledger, lines: Sequence[BudgetLine], now: float) -> Mapping[LineKey, LineBalance]:
    """What the ledger says of the current period of each line. Raises LedgerUnavailableError."""
    found = {}
    for line in lines:
        start = budget.period_start(line.period, now)
        balance = ledger.balance(line.scope, line.period, start * 1000)
        found[line.key] = LineBalance(start, balance.spent_nano, balance.reserved_nano)
    return found


def _spender(facts: RequestFacts, backend: Backend) -> Spender:
    return Spender(backend.name, facts.caller.key_id, facts.caller.tier)


def _refusal_text(reached: CapReached, bound_nano: int) -> str:
    cap = reached.cap
    left = usd(max(0, cap.limit_nano - reached.taken_nano))
    return (
        f"The {cap.period} budget of {usd(cap.limit_nano)} USD for {cap.scope} has {left} USD left and "
        f"this request could cost {usd(bound_nano)} USD. Lower max_tokens, or raise the budget."
    )
