"""The pacer: what an escalation may cost now, from a plan per paced budget that is based on yesterday's rows.

The ledger contains yesterday's doubtful answers with their confidence and tokens, whether or not they were escalated,
so the plan needs no memory of its own and survives restarts. The rows are read once a day, in a thread and in small
pieces, and sampled if there are many. On a first day, when yesterday has too few rows, today's rows so far replace
them, every hour anew.

A cap per hour uses the same hour of yesterday; a cap per month repeats yesterday's curve every day. Requests only read
`price`, which is a look-up and an exponential, without I/O.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from spillway_router.aio.periodic import Periodic, Rhythm
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
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerError
from spillway_router.ledger.interface import Ledger

log = logging.getLogger("spillway.ledger")

REFRESH_S = 5.0
DAY_S = 86_400
HOUR_S = 3_600
FEWEST_OFFERS = 30
"""With fewer offers the price of a period can't be estimated."""
MOST_OFFERS = 20_000
"""If there are more offers, they are sampled evenly; the threshold price needs no more."""
_PIECE = 500
_PAUSE_S = 0.01  # between two pieces, so that requests don't wait for the interpreter lock


@dataclass(frozen=True, slots=True)
class PacingRules:
    """The paced budget lines, the priced backends that answers are escalated to, in order, and the threshold of
    confidence below which an answer is doubtful."""

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
    """The rows of [start_s, end_s), in epoch seconds. `doubtful` holds the share `sampled` (0 to 1) of all doubtful
    answers."""

    start_s: int
    end_s: float
    doubtful: tuple[_Doubtful, ...] = ()
    paid: tuple[_Paid, ...] = ()
    sampled: float = 1.0

    def between(self, start_s: float, end_s: float) -> History:
        """Return the rows of a part of the range."""
        return History(
            start_s=int(start_s),
            end_s=end_s,
            doubtful=tuple(d for d in self.doubtful if start_s <= d.at_s < end_s),
            paid=tuple(p for p in self.paid if start_s <= p.at_s < end_s),
            sampled=self.sampled,
        )


class Pacer:
    """The plans of all paced budgets. Call `start` inside the event loop. `wall` returns epoch seconds."""

    def __init__(self, ledger: Ledger, rules: PacingRules, wall: Callable[[], float] = time.time) -> None:
        self._ledger = ledger
        self._rules = rules
        self._wall = wall
        self._plans: Mapping[LineKey, PacingPlan] = {}
        self._hour = -1
        self._history = History(0, 0)
        self._stopping = threading.Event()
        self._periodic = Periodic("pacer", Rhythm(REFRESH_S), self.refresh, self._log_error)

    @property
    def active(self) -> bool:
        """True if any budget is paced."""
        return self._rules.active

    def configure(self, rules: PacingRules) -> None:
        """Take new rules after a reload. Until they are planned, the old plans stay in force for lines that still
        exist."""
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
        """Return the gain per USD that an escalation to a backend must bring now; 0 if no paced budget covers it.

        `used` holds the shares of the budgets that are spent or held. Of several budgets the tightest one counts.
        """
        wall_s, spender, highest = self._wall(), Spender(backend, caller.key_id, caller.tier), 0.0
        for line in self._rules.lines:
            plan = self._plans.get(line.key)
            if plan is not None and covers(line.scope, spender):
                highest = max(highest, price_now(plan, used.get(line.key, 0.0), _elapsed(line, wall_s)))
        return highest

    def price_of(self, line: LineKey, used_share: float) -> float | None:
        """Return the gain per USD that one budget requires now; None if it is not paced or has no plan yet."""
        plan = self._plans.get(line)
        paced = next((one for one in self._rules.lines if one.key == line), None)
        return None if plan is None or paced is None else price_now(plan, used_share, _elapsed(paced, self._wall()))

    async def refresh(self) -> None:
        """Make new plans if a new hour has begun. Raises LedgerError."""
        hour = int(self._wall() // HOUR_S)
        if self._rules.active and hour != self._hour:
            rules = self._rules
            history, plans = await LEDGER_CALLS.run(self._make_plans, rules)
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

    def _make_plans(self, rules: PacingRules) -> tuple[History, dict[LineKey, PacingPlan]]:
        wall_s = self._wall()
        today_s = int(wall_s // DAY_S) * DAY_S
        history = self._history
        if history.end_s != today_s:
            history = read_history(
                ledger=self._ledger,
                start_s=today_s - DAY_S,
                end_s=today_s,
                threshold=rules.threshold,
                pause=self._pause,
            )
            if len(history.doubtful) < FEWEST_OFFERS:
                history = read_history(
                    ledger=self._ledger, start_s=today_s, end_s=wall_s, threshold=rules.threshold, pause=self._pause
                )
        return history, {line.key: plan_of(line, rules.tiers, history, wall_s) for line in rules.lines}


def read_history(
    ledger: Ledger, start_s: int, end_s: float, threshold: float, pause: Callable[[], bool] = lambda: False
) -> History:
    """Read the doubtful answers and the other cloud spending of [start_s, end_s), in epoch seconds. Raises LedgerError.

    `pause` is called after each piece; if it returns True, reading stops early.
    """
    rng = random.Random(start_s)  # noqa: S311 - a sample, not a secret; the same rows give the same sample
    doubtful: list[_Doubtful] = []
    paid: list[_Paid] = []
    seen = 0
    rows = ledger.entries_between(start_s * 1000, int(end_s * 1000))
    while piece := list(islice(rows, _PIECE)):
        for entry in piece:
            if _is_paid(entry):
                spender = Spender(entry.backend, entry.key_id, entry.tier)
                paid.append(_Paid(entry.ts / 1000, entry.amount_nano / NANO, spender))
            elif _is_doubtful(entry, threshold):
                seen += 1
                if len(doubtful) < MOST_OFFERS:
                    doubtful.append(_doubtful(entry))
                elif (place := rng.randrange(seen)) < MOST_OFFERS:  # Vitter's algorithm R
                    doubtful[place] = _doubtful(entry)
        paid = _condensed(paid)
        if pause():
            break
    sampled = len(doubtful) / seen if seen else 1.0
    return History(start_s=start_s, end_s=end_s, doubtful=tuple(doubtful), paid=tuple(paid), sampled=sampled)


def plan_of(line: BudgetLine, tiers: Sequence[Backend], history: History, wall_s: float) -> PacingPlan:
    """Return the plan for the period of a line that contains `wall_s`."""
    limit_usd = line.limit_nano / NANO
    days = _days_of(line, wall_s)
    first_day = history.end_s > int(wall_s // DAY_S) * DAY_S
    if first_day:
        offers, others = _matching(line, tiers, history)
        left_usd = limit_usd * days * (history.end_s - history.start_s) / DAY_S - sum(s.usd for s in others)
        return PacingPlan(threshold_price(offers, left_usd * history.sampled), UNIFORM)
    if line.period == "hour":
        start_s = period_start("hour", wall_s) - DAY_S
        same_hour = history.between(start_s, start_s + HOUR_S)
        if len(same_hour.doubtful) >= FEWEST_OFFERS:
            return _plan(line, tiers, same_hour, limit_usd)
        return PacingPlan(_plan(line, tiers, history, limit_usd * 24).price, UNIFORM)
    plan = _plan(line, tiers, history, limit_usd * days)
    return plan if line.period == "day" else PacingPlan(plan.price, repeated(plan.curve, round(1 / days)))


def _plan(line: BudgetLine, tiers: Sequence[Backend], history: History, budget_usd: float) -> PacingPlan:
    """Return the plan of a history. A sample of the offers needs only its share of the budget and other spending."""
    offers, others = _matching(line, tiers, history)
    return plan_for(offers, [Spend(s.at, s.usd * history.sampled) for s in others], budget_usd * history.sampled)


def _matching(line: BudgetLine, tiers: Sequence[Backend], history: History) -> tuple[list[SpendOffer], list[Spend]]:
    """Return what a line had to pay for: offers at the price of the first tier it covers, and its other spending."""
    span_s = history.end_s - history.start_s
    offers = []
    for d in history.doubtful:
        tier = next((t for t in tiers if covers(line.scope, Spender(t.name, d.key_id, d.tier))), None)
        if tier is not None and tier.tariff is not None:
            offers.append(SpendOffer((d.at_s - history.start_s) / span_s, d.gain, price(d.usage, tier.tariff) / NANO))
    paid = [Spend((p.at_s - history.start_s) / span_s, p.usd) for p in history.paid if covers(line.scope, p.spender)]
    return offers, paid


def _days_of(line: BudgetLine, wall_s: float) -> float:
    """Return a day as a share of the line's period, which is more than 1 for an hour."""
    start_s = period_start(line.period, wall_s)
    return DAY_S / (period_end(line.period, start_s) - start_s)


def _elapsed(line: BudgetLine, wall_s: float) -> float:
    """Return the share of the line's period that has passed."""
    start_s = period_start(line.period, wall_s)
    return (wall_s - start_s) / (period_end(line.period, start_s) - start_s)


def _is_doubtful(entry: Entry, threshold: float) -> bool:
    return entry.kind == "charged" and entry.local and entry.confidence is not None and entry.confidence < threshold


def _is_paid(entry: Entry) -> bool:
    return entry.kind in ("charged", "adjusted") and not entry.local and entry.decision != "escalated"


def _doubtful(entry: Entry) -> _Doubtful:
    gain = 1.0 - (entry.confidence or 0.0)
    usage = Usage(entry.prompt_tokens, entry.completion_tokens)
    return _Doubtful(at_s=entry.ts / 1000, gain=gain, usage=usage, key_id=entry.key_id, tier=entry.tier)


def _condensed(paid: list[_Paid]) -> list[_Paid]:
    """Sum the rows per spender and half hour, so that their number depends on the keys, not on the requests."""
    sums: dict[tuple[int, Spender], _Paid] = {}
    for p in paid:
        place = (int(p.at_s // (DAY_S / 48)), p.spender)
        first = sums.get(place)
        sums[place] = p if first is None else _Paid(first.at_s, first.usd + p.usd, p.spender)
    return list(sums.values())
