"""What escalating may cost now: for each paced budget the plan from yesterday's rows, followed through the day.

Yesterday's doubtful answers are in the ledger with their confidence and tokens, whether or not they were escalated. So
the plan needs no memory of its own and outlives restarts. They are read once a day, in a thread and in small pieces,
and sampled where they are many. On a first day, with too little of yesterday, today's rows so far stand in, every hour.

A cap per hour takes the same hour of yesterday, a cap per month repeats yesterday's curve every day. Requests only read
`price`: a look-up and an exponential, no I/O.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from spillway_router.aio.periodic import Periodic
from spillway_router.core.frozen import dataclass
from spillway_router.core.money.budget import BudgetLine, LineKey, Spender, covers, period_end, period_start
from spillway_router.core.money.pacing import (
    UNIFORM,
    PacingPlan,
    Spend,
    SpendOffer,
    plan_for,
    price_now,
    repeated,
    threshold_price,
)
from spillway_router.core.money.tariff import NANO, Usage, price
from spillway_router.core.routing.model import Backend, Caller
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger

log = logging.getLogger("spillway.ledger")

REFRESH_S = 5.0
DAY_S = 86_400
HOUR_S = 3_600
FEWEST_OFFERS = 30
"""Fewer tell nothing of a period's price."""
MOST_OFFERS = 20_000
"""More are sampled evenly: the threshold price needs no more."""
_PIECE = 500
_PAUSE_S = 0.01  # between pieces, so that requests don't wait for the interpreter


@dataclass(frozen=True, slots=True)
class PacingRules:
    """The paced budget lines, the priced backends that are escalated to in their order, and below which confidence."""

    lines: tuple[BudgetLine, ...] = ()
    tiers: tuple[Backend, ...] = ()
    threshold: float = 0.0

    @property
    def active(self) -> bool:
        """True if there is anything to pace."""
        return bool(self.lines and self.tiers)


@dataclass(frozen=True, slots=True)
class _Doubtful:
    at_s: float
    gain: float
    usage: Usage
    key_id: str
    tier: str


@dataclass(frozen=True, slots=True)
class _Paid:
    at_s: float
    usd: float
    spender: Spender


@dataclass(frozen=True, slots=True)
class History:
    """Rows of [start, end) in epoch seconds. `kept` of all doubtful answers are in `doubtful` (0 to 1)."""

    start: int
    end: float
    doubtful: tuple[_Doubtful, ...] = ()
    paid: tuple[_Paid, ...] = ()
    kept: float = 1.0

    def between(self, start: float, end: float) -> History:
        """The rows of a part of it."""
        return History(
            int(start),
            end,
            tuple(d for d in self.doubtful if start <= d.at_s < end),
            tuple(p for p in self.paid if start <= p.at_s < end),
            self.kept,
        )


class Pacer:
    """Plans of all paced budgets. `start` inside the event loop, `stop` when done; `wall` is epoch seconds."""

    def __init__(self, ledger: Ledger, rules: PacingRules, wall: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._rules = rules
        self._wall = wall
        self._plans: Mapping[LineKey, PacingPlan] = {}
        self._hour = -1
        self._history = History(0, 0)
        self._stopping = threading.Event()
        self._periodic = Periodic("pacer", REFRESH_S, self.refresh, self._log_error)

    @property
    def active(self) -> bool:
        """True if any budget is paced."""
        return self._rules.active

    def configure(self, rules: PacingRules) -> None:
        """New rules after a reload; until they are planned for, the old plans of lines that stay go on."""
        if rules != self._rules:
            self._rules, self._hour, self._history = rules, -1, History(0, 0)

    def start(self) -> None:
        """Start to keep the plans up to date."""
        self._periodic.start()

    async def stop(self) -> None:
        """Stop; a read in progress ends after its current piece."""
        self._stopping.set()
        await self._periodic.stop()

    def price(self, backend: str, caller: Caller, used: Mapping[LineKey, float]) -> float:
        """Gain per USD that an escalation there must bring now; 0 where no paced budget covers it. `used`: shares of
        the budgets that are spent or held. Of several budgets the tightest counts."""
        now, spender, highest = self._wall(), Spender(backend, caller.key_id, caller.tier), 0.0
        for line in self._rules.lines:
            plan = self._plans.get(line.key)
            if plan is not None and covers(line.scope, spender):
                highest = max(highest, price_now(plan, used.get(line.key, 0.0), _elapsed(line, now)))
        return highest

    def price_of(self, line: LineKey, used_share: float) -> float | None:
        """Gain per USD that one budget asks now; None where it is not paced or not planned for yet."""
        plan = self._plans.get(line)
        paced = next((known for known in self._rules.lines if known.key == line), None)
        return None if plan is None or paced is None else price_now(plan, used_share, _elapsed(paced, self._wall()))

    async def refresh(self) -> None:
        """Plan again if an hour began. Raises LedgerError."""
        hour = int(self._wall() // HOUR_S)
        if self._rules.active and hour != self._hour:
            rules = self._rules
            history, plans = await asyncio.to_thread(self._planned, rules)
            if rules is self._rules:
                self._history, self._plans, self._hour = history, plans, hour

    @staticmethod
    def _log_error(error: Exception) -> None:
        if isinstance(error, LedgerError):
            log.warning("pacing keeps its last plan: %s", error)
        else:
            log.error("pacing keeps its last plan because planning failed", exc_info=error)

    def _pause(self) -> bool:
        return self._stopping.wait(_PAUSE_S)

    def _planned(self, rules: PacingRules) -> tuple[History, dict[LineKey, PacingPlan]]:
        now = self._wall()
        today = int(now // DAY_S) * DAY_S
        history = self._history
        if history.end != today:
            history = read_history(self._ledger, today - DAY_S, today, rules.threshold, self._pause)
            if len(history.doubtful) < FEWEST_OFFERS:
                history = read_history(self._ledger, today, now, rules.threshold, self._pause)
        return history, {line.key: plan_of(line, rules.tiers, history, now) for line in rules.lines}


def read_history(
    ledger: Ledger, start: int, end: float, threshold: float, pause: Callable[[], bool] = lambda: False
) -> History:
    """The doubtful answers and other cloud spending of [start, end) in epoch seconds. Raises LedgerError.

    `pause` is called after each piece; where it returns True, reading ends early.
    """
    dice = random.Random(start)  # noqa: S311 - a sample, not a secret; the same rows give the same sample
    doubtful: list[_Doubtful] = []
    paid: list[_Paid] = []
    seen = 0
    rows = ledger.entries_between(start * 1000, int(end * 1000))
    while piece := list(islice(rows, _PIECE)):
        for entry in piece:
            if _is_paid(entry):
                spender = Spender(entry.backend, entry.key_id, entry.tier)
                paid.append(_Paid(entry.ts / 1000, entry.amount_nano / NANO, spender))
            elif _is_doubtful(entry, threshold):
                seen += 1
                if len(doubtful) < MOST_OFFERS:
                    doubtful.append(_doubtful(entry))
                elif (place := dice.randrange(seen)) < MOST_OFFERS:  # Vitter's algorithm R
                    doubtful[place] = _doubtful(entry)
        paid = _condensed(paid)
        if pause():
            break
    return History(start, end, tuple(doubtful), tuple(paid), len(doubtful) / seen if seen else 1.0)


def plan_of(line: BudgetLine, tiers: Sequence[Backend], history: History, now: float) -> PacingPlan:
    """The plan of a line's period that `now` is in."""
    limit = line.limit_nano / NANO
    first_day = history.end > int(now // DAY_S) * DAY_S
    if first_day:
        offers, others = _matching(line, tiers, history)
        left = limit * _days_of(line, now) * (history.end - history.start) / DAY_S - sum(s.usd for s in others)
        return PacingPlan(threshold_price(offers, left * history.kept), UNIFORM)
    if line.period == "hour":
        start = period_start("hour", now) - DAY_S
        same = history.between(start, start + HOUR_S)
        if len(same.doubtful) >= FEWEST_OFFERS:
            return _plan(line, tiers, same, limit)
        return PacingPlan(_plan(line, tiers, history, limit * 24).price, UNIFORM)
    plan = _plan(line, tiers, history, limit * _days_of(line, now))
    return (
        plan if line.period == "day" else PacingPlan(plan.price, repeated(plan.curve, round(1 / _days_of(line, now))))
    )


def _plan(line: BudgetLine, tiers: Sequence[Backend], history: History, budget_usd: float) -> PacingPlan:
    """Sampled offers stand for more, so the budget and what else it paid shrink with the sample."""
    offers, others = _matching(line, tiers, history)
    return plan_for(offers, [Spend(s.at, s.usd * history.kept) for s in others], budget_usd * history.kept)


def _matching(line: BudgetLine, tiers: Sequence[Backend], history: History) -> tuple[list[SpendOffer], list[Spend]]:
    """What a line had to pay for: offers at the price of the first tier it covers, and its other spending."""
    span = history.end - history.start
    offers = []
    for d in history.doubtful:
        tier = next((t for t in tiers if covers(line.scope, Spender(t.name, d.key_id, d.tier))), None)
        if tier is not None and tier.tariff is not None:
            offers.append(SpendOffer((d.at_s - history.start) / span, d.gain, price(d.usage, tier.tariff) / NANO))
    paid = [Spend((p.at_s - history.start) / span, p.usd) for p in history.paid if covers(line.scope, p.spender)]
    return offers, paid


def _days_of(line: BudgetLine, now: float) -> float:
    """A day as a share of the line's period; more than 1 for an hour."""
    start = period_start(line.period, now)
    return DAY_S / (period_end(line.period, start) - start)


def _elapsed(line: BudgetLine, now: float) -> float:
    start = period_start(line.period, now)
    return (now - start) / (period_end(line.period, start) - start)


def _is_doubtful(entry: Entry, threshold: float) -> bool:
    return entry.kind == "charged" and entry.local and entry.confidence is not None and entry.confidence < threshold


def _is_paid(entry: Entry) -> bool:
    return entry.kind in ("charged", "adjusted") and not entry.local and entry.decision != "escalated"


def _doubtful(entry: Entry) -> _Doubtful:
    gain = 1.0 - (entry.confidence or 0.0)
    usage = Usage(entry.prompt_tokens, entry.completion_tokens)
    return _Doubtful(entry.ts / 1000, gain, usage, entry.key_id, entry.tier)


def _condensed(paid: list[_Paid]) -> list[_Paid]:
    """One row per spender and half hour: as many as there are keys, not as there were requests."""
    sums: dict[tuple[int, Spender], _Paid] = {}
    for p in paid:
        place = (int(p.at_s // (DAY_S / 48)), p.spender)
        known = sums.get(place)
        sums[place] = p if known is None else _Paid(known.at_s, known.usd + p.usd, p.spender)
    return list(sums.values())
