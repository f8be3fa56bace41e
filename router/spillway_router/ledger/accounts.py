"""Accounts: the money side of one attempt, from hold to charge.

A paid attempt first takes a hold of its upper bound: one write, which the database stores only if every cap that covers
the attempt has room for it. The database checks that inside the transaction, and the row is on disk before a byte
leaves. When the attempt ends, it is settled to its cost, or released if it cost nothing. A local attempt has only its
charge row: 0 nano-dollars and its GPU work share.

No attempt waits for a ledger that is away: its last row goes to the journal (journal.py), from which it is stored
later, by the next router if need be. If the journal is lost, another process charges a hold's bound (orphans.py), and a
free attempt's row is missing. Rows that found no place are counted in `lost_rows`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from spillway_router.core.frozen import fast_frozen
from spillway_router.core.money import budget, degrade
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.budget import (
    EACH,
    EACH_KEY,
    EACH_USER,
    BudgetAlert,
    BudgetLine,
    LineBalance,
    LineKey,
    Spender,
)
from spillway_router.core.money.currency import IN_USD
from spillway_router.core.money.tariff import Tariff
from spillway_router.core.routing.model import Backend, CacheHit, RequestFacts
from spillway_router.ledger.alert_watch import AlertWatch, Noted, claims
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import EntryConflictError, LedgerError, LedgerUnavailableError
from spillway_router.ledger.holds import AttemptEntries, AttemptReason, AttemptResult, ExcessCharge, Hold, HoldRefused
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.journal import NO_HOLD
from spillway_router.ledger.orphans import corrected, unknown_charge
from spillway_router.ledger.records import Cap, CapReached
from spillway_router.ledger.tables.tariffs import texts_of
from spillway_router.ledger.writer import LedgerWriter

Durable = asyncio.Future[CapReached | None]
"""Resolves when a row is on disk; raises LedgerError."""

MOST_COVERS = 10_000
MOST_FREED = 10_000
"""Ends of holds that are kept between two looks at the ledger. Beyond them a look may find less room than there is."""
KEEP_PRICES_S = 1.0


@fast_frozen(frozen=True, slots=True)
class _Cover:
    """The budgets that cover a spender: their lines, and the same lines as caps in their current periods."""

    lines: tuple[BudgetLine, ...]
    keys: tuple[LineKey, ...]
    caps: tuple[Cap, ...]


@fast_frozen(frozen=True, slots=True)
class _Freed:
    """What the end of a hold gave back to the budgets that cover it, and its row: while that is on its way, the ledger
    still tells the hold."""

    keys: tuple[LineKey, ...]
    held_s: float
    nano: int
    row: Durable


def _ignore_excess(_excess: ExcessCharge) -> None:
    """Do nothing about a charge above its hold."""


class Accounts:
    """Holds and charges of all requests of this process. `wall` returns epoch seconds."""

    def __init__(
        self,
        writer: LedgerWriter,
        lines: Sequence[BudgetLine],
        coefficients: WorkCoefficients,
        wall: Callable[[], float],
        on_alert: Callable[[BudgetAlert], None],
        router_id: str = "",
        on_excess: Callable[[ExcessCharge], None] = _ignore_excess,
    ) -> None:
        self._writer = writer
        self._wall = wall
        self._latest_s = 0.0
        self._on_excess = on_excess
        self._entries = AttemptEntries(router_id, coefficients, wall)
        self._watch = AlertWatch(on_alert)
        self._each_key: tuple[BudgetLine, ...] = ()
        self._each_user: tuple[BudgetLine, ...] = ()
        self._state = budget.opening(lines, wall())
        self._by_scope = _by_scope(lines)
        self._by_backend = _by_backend(self._by_scope)
        self._hour = 0
        self._covers: dict[tuple[str, str, str], _Cover] = {}
        """By backend, key and tier. They are valid for one hour, because every period ends with an hour."""
        self._freed: deque[_Freed] = deque(maxlen=MOST_FREED)
        self._ledger: Ledger | None = None
        self._kept_prices: set[str] = set()
        """The names of prices that the ledger keeps, as far as this process has looked."""
        self._lost_rows = 0

    def set_coefficients(self, coefficients: WorkCoefficients) -> None:
        """Attribute GPU time by other coefficients, for attempts that end from now on."""
        self._entries = replace(self._entries, coefficients=coefficients)

    def load(self, ledger: Ledger, lines: Sequence[BudgetLine]) -> None:
        """Replace the budgets with those of a configuration, and read the balances of their current periods."""
        self._ledger = ledger
        wall_s = self._wall_s()
        self._each_key = tuple(line for line in lines if line.scope == EACH_KEY)
        self._each_user = tuple(line for line in lines if line.scope == EACH_USER)
        self._entries = replace(self._entries, names_users=bool(self._each_user))
        lines = tuple(line for line in lines if line.scope not in EACH)
        self._state = budget.opening(lines, wall_s, read_balances(ledger, lines, wall_s))
        self._by_scope = _by_scope(lines)
        self._by_backend = _by_backend(self._by_scope)
        self._covers.clear()

    def keep_prices(self, tariffs: Iterable[Tariff | None]) -> None:
        """Keep prices in the ledger before a row names them, so that a first request need not wait for that.

        Raises LedgerError.
        """
        texts = {ref: text for ref, text in texts_of(tariffs).items() if ref not in self._kept_prices}
        if texts and self._ledger is not None:
            self._ledger.tariffs.keep(texts, int(self._wall_s() * 1000))
            self._kept_prices |= texts.keys()

    async def refresh(self, ledger: Ledger) -> None:
        """Read the balances again, because other processes spend too, and raise the alerts that are due.

        Raises LedgerUnavailableError.
        """
        if not self.has_budgets:
            return
        noted = self._watch.take()
        try:
            await self._look(ledger, noted)
        except BaseException:
            self._watch.put_back(noted)
            raise

    async def _look(self, ledger: Ledger, noted: Noted) -> None:
        wall_s = self._wall_s()
        own = (line for scope in noted.scopes for line in self._own_lines(scope))
        lines = [*self._state.lines, *(line for line in own if line.label and line.alert_at)]
        self._freed = deque((freed for freed in self._freed if not freed.row.done()), MOST_FREED)
        balances = await LEDGER_CALLS.run(read_balances, ledger, lines, wall_s)
        self._state = budget.refreshed(budget.rolled(self._state, wall_s), self._with_what_was_freed(balances))
        periods = [(line, balances[line.key]) for line in lines]
        past = noted.past((line for line in lines if line.alert_at), wall_s)
        if past:  # calls that were held before a period's end, and settled or refused since the last look
            periods += await LEDGER_CALLS.run(_read_periods, ledger, past)
        due = self._watch.due(periods, noted)
        if due:
            self._watch.tell(await LEDGER_CALLS.run(claims, ledger, due, int(wall_s * 1000)))

    def _with_what_was_freed(self, balances: Mapping[LineKey, LineBalance]) -> Mapping[LineKey, LineBalance]:
        """Return balances that were just read without the holds that ended here meanwhile.

        The database may have had some of the rows: then there seems to be more room than there is, until the next look.
        It judges every hold itself; a hold that is over would refuse calls which fit.
        """
        read = budget.BudgetState((), dict(balances))
        for freed in self._freed:
            budget.move(read, freed.keys, freed.held_s, reserved_nano=-freed.nano)
        return read.balances

    @property
    def has_budgets(self) -> bool:
        """True if any cap is configured."""
        return bool(self._state.lines or self._each_key or self._each_user)

    def limits(self, facts: RequestFacts) -> bool:
        """Return whether any cap may concern this caller."""
        return self.has_budgets or bool(_rule_lines(facts)) or bool(self._user_lines(facts))

    def headroom(self, facts: RequestFacts, backend: Backend) -> int | None:
        """Return the nano-dollars that this caller may still spend at this backend, as far as this process knows.

        None means that no budget covers them. What a key or a user may spend for itself counts as free here: the
        database alone knows how much of that is taken.
        """
        return self.headrooms(facts, (backend.name,))[backend.name]

    def headrooms(self, facts: RequestFacts, backends: Iterable[str]) -> Mapping[str, int | None]:
        """Return `headroom` for each of the backends, by name. What they share is looked at once."""
        shared = self._cover(Spender("", facts.caller.key_id, facts.caller.tier), self._wall_s()).lines
        balances, by_backend = self._state.balances, self._by_backend
        shared_nano = _least_left_nano((*shared, *self._user_lines(facts), *_rule_lines(facts)), balances)
        left_nano: dict[str, int | None] = {}
        for name in backends:
            own = by_backend.get(name)
            own_nano = None if own is None else _least_left_nano(own, balances)
            if own_nano is None:
                left_nano[name] = shared_nano
            else:
                left_nano[name] = own_nano if shared_nano is None else min(own_nano, shared_nano)
        return left_nano

    def refused(self, facts: RequestFacts, backend: Backend, bound_nano: int) -> None:
        """Note that a request got a 402, as its bound did not fit into what a budget had left."""
        balances = self._state.balances
        wall_s = self._wall_s()
        for line in self._cover(_spender(facts, backend), wall_s).lines:
            if line.limit_nano - _taken_nano(balances.get(line.key)) < bound_nano:
                self._watch.refused((*line.key, budget.period_start(line.period, wall_s)))

    def balances(self) -> tuple[tuple[BudgetLine, LineBalance], ...]:
        """Return every budget with its balance in the current period, as far as this process knows."""
        state = budget.rolled(self._state, self._wall_s())
        return tuple((line, state.balances[line.key]) for line in state.lines)

    def shares_used(self, facts: RequestFacts) -> Mapping[LineKey, float]:
        """Return the share of each budget that is spent or held, for the budgets that concern this caller."""
        return degrade.shares_used(self._state, facts.caller.key_id, facts.caller.tier, self._wall_s())

    async def hold(
        self, facts: RequestFacts, backend: Backend, reason: AttemptReason, attempt_no: int, bound_nano: int
    ) -> Hold | HoldRefused:
        """Set the bound aside. When this returns the Hold of a paid attempt, its row is on disk."""
        wall_s = self._wall_s()
        if backend.tariff is None:
            self._writer.attempt_began()
            return Hold(facts=facts, backend=backend, reason=reason, attempt_no=attempt_no, held_ms=int(wall_s * 1000))
        if not self._writer.may_spend:
            return HoldRefused("ledger", "paid calls are paused: the ledger can't guarantee to record their cost")
        if backend.tariff.ref not in self._kept_prices:  # of a backend that no configuration named at the last load
            try:
                await LEDGER_CALLS.run(self.keep_prices, (backend.tariff,), limit_s=KEEP_PRICES_S)
            except LedgerError as error:
                return HoldRefused("ledger", f"paid calls are paused: {error}")
        hold = Hold(
            facts=facts,
            backend=backend,
            reason=reason,
            attempt_no=attempt_no,
            held_ms=int(wall_s * 1000),
            bound_nano=bound_nano,
            stored=True,
        )
        caps = self._cover(_spender(facts, backend), wall_s).caps
        user_lines = self._user_lines(facts)
        if user_lines:
            lines = budget.lines_for(f"user:{self._entries.user_id(facts)}", user_lines)
            caps = (*caps, *_caps(lines, wall_s))
        if facts.caller.rules is not None:
            caps = _lowest((*caps, *_caps(_rule_lines(facts), wall_s)))
        try:
            reached = await self._writer.submit((self._entries.reserved(hold),), caps, urgent=True)
        except LedgerError as error:
            if isinstance(error, LedgerUnavailableError):
                # The row may be on disk: a commit may have succeeded although its acknowledgement was lost.
                self._close(self._entries.released(hold), hold)
            return HoldRefused("ledger", f"paid calls are paused: {error}")
        except BaseException:  # the client left during the write: close the hold, whether or not it was stored
            self._close(self._entries.released(hold), hold)
            raise
        if reached is not None:
            start_s = reached.cap.start_ms // 1000
            line = (reached.cap.scope, reached.cap.period)
            self._watch.refused((*line, start_s))
            self._state = budget.taken_at_least(self._state, line, start_s, reached.taken_nano)
            return HoldRefused("budget", _refusal_message(reached, bound_nano))
        self._move(hold, reserved_nano=bound_nano)
        self._writer.attempt_began()
        return hold

    def release(self, hold: Hold) -> None:
        """Release the hold of an attempt that was never made. This never waits, and a free attempt needs no row."""
        self._writer.attempt_ended()
        if hold.stored:
            self._move(hold, reserved_nano=-hold.bound_nano)
            self._note_freed(hold, hold.bound_nano, self._close(self._entries.released(hold), hold))

    def settle(self, hold: Hold, backend: Backend, result: AttemptResult) -> tuple[int, Durable | None]:
        """Charge the attempt; return nano-dollars, and a future that resolves when the row is on disk.

        This never waits, so a cleanup may call it. The future is None if the row could not even be queued, as the
        writer is closed.
        """
        entry = self._entries.closing(hold, backend, result)
        charge_nano = entry.amount_nano
        self._writer.attempt_ended()
        if hold.stored:
            if charge_nano > hold.bound_nano:
                self._on_excess(
                    ExcessCharge(
                        request_id=entry.request_id,
                        attempt_no=entry.attempt_no,
                        backend=entry.backend,
                        charge_nano=charge_nano,
                        bound_nano=hold.bound_nano,
                    )
                )
            self._move(hold, reserved_nano=entry.reserved_nano - hold.bound_nano, spent_nano=charge_nano)
            row = self._close(entry, hold)
            self._note_freed(hold, hold.bound_nano - entry.reserved_nano - charge_nano, row)
            return charge_nano, row
        try:
            return charge_nano, self._writer.submit((entry,), bound_nano=NO_HOLD, on_failure=self._count_lost)
        except LedgerError:
            self._lost_rows += 1
            return charge_nano, None

    def note_cache_hit(self, facts: RequestFacts, hit: CacheHit) -> Durable | None:
        """Write the row of a request that got a stored answer, which cost nothing; return as `settle` does."""
        try:
            return self._writer.submit(
                (self._entries.cached(facts, hit),), bound_nano=NO_HOLD, on_failure=self._count_lost
            )
        except LedgerError:
            self._lost_rows += 1
            return None

    def note_unmade(
        self, facts: RequestFacts, backend: Backend, reason: AttemptReason, attempt_no: int
    ) -> Durable | None:
        """Write the row of an attempt that was decided on and never made; return as `settle` does."""
        hold = Hold(
            facts=facts, backend=backend, reason=reason, attempt_no=attempt_no, held_ms=int(self._wall_s() * 1000)
        )
        try:
            return self._writer.submit((self._entries.released(hold),), bound_nano=NO_HOLD, on_failure=self._count_lost)
        except LedgerError:
            self._lost_rows += 1
            return None

    @staticmethod
    async def durable(row: Durable | None) -> None:
        """Wait until the row is on disk, in the ledger or the journal, or known to be lost."""
        if row is not None:
            try:  # not contextlib.suppress, because every request runs this
                await row
            except LedgerError:
                return

    @property
    def owed_rows(self) -> int:
        """The number of entries in the journal that end a hold."""
        return self._writer.journal.closing_rows

    @property
    def lost_rows(self) -> int:
        """The number of rows that neither the ledger nor the journal has."""
        return self._lost_rows + self._writer.journal.lost_rows

    def _wall_s(self) -> float:
        """Return epoch seconds that never go back, so that a hold and its caps always belong to the same period."""
        self._latest_s = max(self._latest_s, self._wall())
        return self._latest_s

    def _close(self, entry: Entry, hold: Hold) -> Durable | None:
        """Queue an entry that ends a hold."""
        try:
            return self._writer.submit(
                (entry,),
                closing=True,
                bound_nano=hold.bound_nano,
                on_failure=lambda error: self._on_close_failed(entry, hold, error),
            )
        except LedgerError:
            self._lost_rows += 1  # the writer is closed; another process will charge the bound
        return None

    def _on_close_failed(self, entry: Entry, hold: Hold, error: LedgerError) -> None:
        if isinstance(error, EntryConflictError):
            # Another process considered this router dead and charged the bound: adjust that charge to the real cost.
            # If the bound was adjusted already, that adjustment comes from the bill and stands.
            if entry.kind != "adjusted":
                self._close(corrected(entry, hold.bound_nano), hold)
        elif entry.kind == "charged" and (entry.status != "unknown" or entry.amount_nano > hold.bound_nano):
            # The provider reported a nonsensical usage, whose cost can't be stored: the hold ends at its bound.
            self._close(unknown_charge(self._entries.reserved(hold)), hold)
        else:
            self._lost_rows += 1

    def _count_lost(self, _error: LedgerError) -> None:
        self._lost_rows += 1

    def _cover(self, spender: Spender, wall_s: float) -> _Cover:
        hour = int(wall_s // 3600)
        if hour != self._hour or len(self._covers) > MOST_COVERS:
            self._hour = hour
            self._covers.clear()
            self._state = budget.rolled(self._state, wall_s)
        who = (spender.backend, spender.key_id, spender.tier)
        cover = self._covers.get(who)
        if cover is None:
            lines = self._lines_of(spender)
            cover = self._covers[who] = _Cover(lines, tuple(line.key for line in lines), _caps(lines, wall_s))
        return cover

    def _move(self, hold: Hold, *, reserved_nano: int, spent_nano: int = 0) -> None:
        spender = _spender(hold.facts, hold.backend)
        if self._state.lines and (keys := self._cover(spender, self._wall_s()).keys):
            held_s = hold.held_ms / 1000
            budget.move(self._state, keys, held_s, spent_nano=spent_nano, reserved_nano=reserved_nano)
        if spent_nano:
            self._watch.settled(hold.held_ms)
        if spent_nano and self._each_key and hold.facts.caller.key_id:
            self._watch.spent(f"key:{hold.facts.caller.key_id}")
        if spent_nano and self._each_user:
            self._watch.spent(f"user:{self._entries.user_id(hold.facts)}")

    def _note_freed(self, hold: Hold, nano: int, row: Durable | None) -> None:
        """Note what a budget got back, until the ledger tells it."""
        if nano > 0 and row is not None and self._state.lines:
            keys = self._cover(_spender(hold.facts, hold.backend), self._wall_s()).keys
            if keys:
                self._freed.append(_Freed(keys, hold.held_ms / 1000, nano, row))

    def _lines_of(self, spender: Spender) -> tuple[BudgetLine, ...]:
        scopes = ("all", f"backend:{spender.backend}", f"tier:{spender.tier}")
        shared = (line for scope in scopes for line in self._by_scope.get(scope, ()))
        return (*shared, *self._own_lines(f"key:{spender.key_id}")) if spender.key_id else tuple(shared)

    def _user_lines(self, facts: RequestFacts) -> tuple[BudgetLine, ...]:
        """Return the caps of each user that bind this caller: those of the configuration, and that of its key, which
        takes the place of one for the same period."""
        rules = facts.caller.rules
        if rules is None or rules.user_budget is None:
            return self._each_user
        own = rules.user_budget
        return (own, *[line for line in self._each_user if line.period != own.period])

    def _own_lines(self, scope: str) -> tuple[BudgetLine, ...]:
        """Return the caps of one key or user: its own ones, and those that every key or user has."""
        own = self._by_scope.get(scope, ())
        each = self._each_key if scope.startswith("key:") else self._each_user
        return (*own, *budget.lines_for(scope, each, own)) if each else own


def read_balances(ledger: Ledger, lines: Sequence[BudgetLine], wall_s: float) -> Mapping[LineKey, LineBalance]:
    """Read the balance of each line in its current period from the ledger. Raises LedgerUnavailableError."""
    balances = {}
    for line in lines:
        start_s = budget.period_start(line.period, wall_s)
        stored = ledger.balance(line.scope, line.period, start_s * 1000)
        balances[line.key] = LineBalance(start_s, stored.spent_nano, stored.reserved_nano)
    return balances


def _read_periods(ledger: Ledger, periods: Sequence[tuple[BudgetLine, int]]) -> list[tuple[BudgetLine, LineBalance]]:
    """Read the balances of lines in the periods that begin at these times (epoch seconds)."""
    read = []
    for line, start_s in periods:
        stored = ledger.balance(line.scope, line.period, start_s * 1000)
        read.append((line, LineBalance(start_s, stored.spent_nano, stored.reserved_nano)))
    return read


def _caps(lines: Iterable[BudgetLine], wall_s: float) -> tuple[Cap, ...]:
    return tuple(
        Cap(line.scope, line.period, budget.period_start(line.period, wall_s) * 1000, line.limit_nano) for line in lines
    )


def _rule_lines(facts: RequestFacts) -> tuple[BudgetLine, ...]:
    """Return the cap that the caller's key has by its own rules."""
    rules = facts.caller.rules
    return () if rules is None or rules.budget is None else (rules.budget,)


def _lowest(caps: tuple[Cap, ...]) -> tuple[Cap, ...]:
    """Return the lowest of the caps of each scope and period: a key may have one by configuration, too."""
    lowest: dict[LineKey, Cap] = {}
    for cap in caps:
        other = lowest.get((cap.scope, cap.period))
        if other is None or cap.limit_nano < other.limit_nano:
            lowest[cap.scope, cap.period] = cap
    return tuple(lowest.values())


def _by_scope(lines: Iterable[BudgetLine]) -> Mapping[str, tuple[BudgetLine, ...]]:
    """Return the lines by their scope, so that those of a spender are found whatever their number."""
    by_scope: dict[str, tuple[BudgetLine, ...]] = {}
    for line in lines:
        by_scope[line.scope] = (*by_scope.get(line.scope, ()), line)
    return by_scope


def _by_backend(by_scope: Mapping[str, tuple[BudgetLine, ...]]) -> Mapping[str, tuple[BudgetLine, ...]]:
    """Return the lines that cover a single backend, by its name."""
    return {scope.removeprefix("backend:"): lines for scope, lines in by_scope.items() if scope.startswith("backend:")}


def _least_left_nano(lines: Sequence[BudgetLine], balances: Mapping[LineKey, LineBalance]) -> int | None:
    """Return the nano-dollars that are left of the line with the least left; None without a line."""
    if not lines:
        return None
    return max(0, min([line.limit_nano - _taken_nano(balances.get(line.key)) for line in lines]))


def _taken_nano(balance: LineBalance | None) -> int:
    """Return what is taken of a line; what a key has taken of a cap for itself is not known here."""
    return 0 if balance is None else balance.taken_nano


def _spender(facts: RequestFacts, backend: Backend) -> Spender:
    return Spender(backend.name, facts.caller.key_id, facts.caller.tier)


def _refusal_message(reached: CapReached, bound_nano: int) -> str:
    cap = reached.cap
    left = IN_USD.money(max(0, cap.limit_nano - reached.taken_nano))
    return (
        f"The {cap.period} budget of {IN_USD.money(cap.limit_nano)} for {cap.scope} has {left} left and "
        f"this request could cost {IN_USD.money(bound_nano)}. Lower max_tokens, or raise the budget."
    )
