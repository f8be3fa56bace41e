"""Plans of paced budgets from the rows of yesterday, in a real ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from tests.core.scenes import GROQ, OPENAI

from spillway_router.core.money.budget import BudgetLine, Period, period_start
from spillway_router.core.money.pacing import UNIFORM, SpendOffer, threshold_price
from spillway_router.core.money.tariff import NANO, Tariff
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.pacer import DAY_S, HOUR_S, MOST_OFFERS, Pacer, PacingRules, plan_of, read_history
from spillway_router.ledger.store.open import open_ledger
from spillway_router.testing import MemoryLedger

TODAY = 1_700_006_400  # a midnight, UTC
NOON = TODAY + DAY_S / 2
ROUND = replace(OPENAI, tariff=Tariff(Decimal(1000), Decimal(1000)))
"""A token costs a tenth of a cent, so that 10 tokens are a cent."""
NUMBERS = count()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


def answered(at: float, confidence: float | None, tokens: int = 10, **changes: object) -> Entry:
    """A local answer; escalating it costs `tokens` tenths of a cent at ROUND."""
    entry = Entry(
        kind="charged",
        request_id=f"r{next(NUMBERS)}",
        attempt_no=1,
        ts=int(at * 1000),
        backend="local",
        local=True,
        decision="local",
        status="ok",
        prompt_tokens=tokens,
        confidence=confidence,
    )
    return entry._replace(**changes)  # type: ignore[arg-type]


def paid(at: float, usd: float, decision: str = "overflow", **changes: object) -> Entry:
    return answered(
        at, None, 0, local=False, backend="openai", decision=decision, amount_nano=int(usd * NANO), **changes
    )


def line(period: Period = "day", usd: float = 1.0, scope: str = "all") -> BudgetLine:
    return BudgetLine(scope, period, int(usd * NANO))


def yesterday(number: int = 100) -> list[Entry]:
    """Evenly over the day: gains from 0.01 up to `number` hundredths, a cent each."""
    return [answered(TODAY - DAY_S + i * DAY_S / number, 1 - (i + 1) / 100) for i in range(number)]


def rules(*lines: BudgetLine) -> PacingRules:
    return PacingRules(lines, (ROUND,), 0.995)


def refreshed(ledger: Ledger, paced: PacingRules, now: float = NOON) -> Pacer:
    pacer = Pacer(ledger, paced, lambda: now)
    asyncio.run(pacer.refresh())
    return pacer


def test_the_price_is_that_of_yesterdays_last_offer_that_would_have_fit(ledger: Ledger) -> None:
    ledger.append(yesterday())
    pacer = refreshed(ledger, rules(line(usd=0.255)))  # 25 of the 100
    on_plan = pacer.price("openai", Caller(), {("all", "day"): 0.0})
    plan = plan_of(line(usd=0.255), (ROUND,), read_history(ledger, TODAY - DAY_S, TODAY, 0.995), NOON)
    assert plan.price == pytest.approx(75)  # gain 0.75 for a cent
    assert plan.curve.at(0.7) == 0  # the good ones came at the end of the day
    assert plan.curve.at(1) == pytest.approx(1)
    assert on_plan == pytest.approx(75)
    assert pacer.price("openai", Caller(), {("all", "day"): 0.1}) == pytest.approx(75 * 2.718281828**1.5)


def test_what_pacing_has_no_say_in_is_taken_off(ledger: Ledger) -> None:
    spent = [paid(TODAY - HOUR_S, 0.1), paid(TODAY - HOUR_S, 0.5, "escalated"), paid(TODAY + 60, 0.5)]
    ledger.append([*yesterday(), *spent])
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.995)
    assert [p.usd for p in history.paid] == [0.1]
    assert plan_of(line(usd=0.255), (ROUND,), history, NOON).price == pytest.approx(85)


def test_only_doubtful_answers_count(ledger: Ledger) -> None:
    at = TODAY - HOUR_S
    rows = [answered(at, 0.79), answered(at, 0.8), answered(at, None), answered(at, 0.1, status="discarded")]
    ledger.append(rows)
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.8)
    assert sorted(d.gain for d in history.doubtful) == pytest.approx([0.21, 0.9])


def test_a_line_sees_its_own_callers_and_its_own_backend(ledger: Ledger) -> None:
    rows = [e._replace(key_id="k1" if i % 2 else "k2", tier="free") for i, e in enumerate(yesterday())]
    ledger.append([*rows, paid(TODAY - 60, 0.05, key_id="k1")])
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.995)
    for scope, price in (("all", 80), ("tier:free", 75), ("tier:paid", 0), ("key:k1", 60), ("backend:openai", 80)):
        price_of_line = plan_of(line(usd=0.255, scope=scope), (ROUND,), history, NOON).price
        assert price_of_line == pytest.approx(price, abs=1.1), scope
    assert plan_of(line(scope="backend:groq"), (ROUND,), history, NOON).price == 0
    cheaper = plan_of(line(usd=0.255, scope="backend:groq"), (ROUND, GROQ), history, NOON)
    assert cheaper.price == pytest.approx(0.01 / 0.0000005)  # all fit; 10 tokens at groq's price


def test_a_price_applies_only_where_a_paced_budget_covers_the_call(ledger: Ledger) -> None:
    ledger.append([e._replace(key_id="k1") for e in yesterday()])
    lines = line(usd=0.255, scope="key:k1"), line(usd=0.505, scope="backend:openai")
    pacer = refreshed(ledger, rules(*lines), now=TODAY)
    nobody, mine = Caller(), Caller(key_id="k1")
    assert pacer.price("groq", nobody, {}) == 0
    assert pacer.price("groq", mine, {}) == pytest.approx(75)
    assert pacer.price("openai", nobody, {}) == pytest.approx(50)
    assert pacer.price("openai", mine, {}) == pytest.approx(75)  # the tighter of the two


def test_an_hour_takes_the_same_hour_of_yesterday(ledger: Ledger) -> None:
    noon = [answered(NOON - DAY_S + i * 30, 1 - (i + 1) / 100) for i in range(100)]
    night = [answered(TODAY - DAY_S + i, 0.99) for i in range(100)]
    ledger.append([*noon, *night])
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.995)
    at_noon = plan_of(line("hour", 0.255), (ROUND,), history, NOON + 60)
    assert at_noon.price == pytest.approx(75)
    assert at_noon.curve.at(0.6) == 0
    quiet = plan_of(line("hour", 0.255), (ROUND,), history, NOON + 5 * HOUR_S)
    assert (quiet.price, quiet.curve) == (pytest.approx(1), UNIFORM)  # the day's 200 cents fit 24 hours' budgets


def test_a_month_repeats_yesterday_every_day(ledger: Ledger) -> None:
    ledger.append(yesterday())
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.995)
    plan = plan_of(line("month", 0.255 * 30), (ROUND,), history, NOON)  # November
    assert plan.price == pytest.approx(75)
    assert plan.curve.at(10 / 30) == pytest.approx(10 / 30)
    assert plan.curve.at(10.5 / 30) == pytest.approx(10 / 30)
    start = period_start("month", NOON)
    assert refreshed(ledger, rules(line("month", 0.255 * 30))).price("openai", Caller(), {}) == pytest.approx(
        75 * 2.718281828 ** (-15 * plan.curve.at((NOON - start) / (30 * DAY_S)))
    )


def test_on_a_first_day_the_hours_so_far_stand_in(ledger: Ledger) -> None:
    ledger.append([e._replace(ts=e.ts + DAY_S * 1000) for e in yesterday()])
    pacer = refreshed(ledger, rules(line(usd=0.505)))  # by noon: 50 offers, half of the budget
    price = threshold_price([SpendOffer(0, (i + 1) / 100, 0.01) for i in range(50)], 0.2525)
    assert pacer.price("openai", Caller(), {("all", "day"): 0.5}) == pytest.approx(price)
    assert refreshed(MemoryLedger(), rules(line())).price("openai", Caller(), {("all", "day"): 0.5}) == 0


class Watched(MemoryLedger):
    """Counts reads of rows; can be down."""

    reads = 0
    down = False

    def entries_between(self, start_ms: int, end_ms: int) -> Iterator[Entry]:
        if self.down:
            raise LedgerUnavailableError("down")
        self.reads += 1
        return super().entries_between(start_ms, end_ms)


async def test_yesterday_is_read_once_a_day_and_a_reload_reads_it_again() -> None:
    ledger, now = Watched(), NOON
    ledger.append(yesterday())
    pacer = Pacer(ledger, rules(line()), lambda: now)
    for later in (0, 5, HOUR_S, 2 * HOUR_S):
        now = NOON + later
        await pacer.refresh()
    assert ledger.reads == 1
    pacer.configure(rules(line()))
    await pacer.refresh()
    assert ledger.reads == 1  # nothing changed
    pacer.configure(rules(line(usd=2)))
    await pacer.refresh()
    assert ledger.reads == 2
    now = NOON + DAY_S
    await pacer.refresh()
    assert ledger.reads == 4  # the new yesterday has too little, so today's rows too


def test_without_paced_budgets_nothing_is_read() -> None:
    ledger = Watched()
    pacer = refreshed(ledger, PacingRules())
    assert not pacer.active
    assert (pacer.price("openai", Caller(), {}), ledger.reads) == (0, 0)


async def test_a_ledger_that_is_away_keeps_the_last_plan_and_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Watched()
    ledger.append(yesterday())
    now = NOON
    pacer = Pacer(ledger, rules(line(usd=0.255)), lambda: now)
    await pacer.refresh()
    ledger.down, now = True, NOON + DAY_S
    with pytest.raises(LedgerUnavailableError):
        await pacer.refresh()
    assert pacer.price("openai", Caller(), {}) == pytest.approx(75)
    pacer.start()
    async with asyncio.timeout(10):
        while "pacing keeps its last plan: down" not in caplog.text:
            await asyncio.sleep(0.001)
    await pacer.stop()


def test_many_rows_are_sampled_evenly_and_paid_ones_condensed() -> None:
    ledger = MemoryLedger()
    number = MOST_OFFERS + 10_000
    ledger.append([answered(TODAY - DAY_S + i, 0.5) for i in range(number)])
    ledger.append([paid(TODAY - 600 + i / 10, 0.001) for i in range(2000)])
    history = read_history(ledger, TODAY - DAY_S, TODAY, 0.8)
    assert len(history.doubtful) == MOST_OFFERS
    assert history.sampled == pytest.approx(MOST_OFFERS / number)
    late = sum(d.at_s >= TODAY - DAY_S + MOST_OFFERS for d in history.doubtful) / MOST_OFFERS
    assert late == pytest.approx(1 / 3, abs=0.02)
    assert [round(p.usd, 6) for p in history.paid] == [2.0]
    stopped = read_history(ledger, TODAY - DAY_S, TODAY, 0.8, pause=lambda: True)
    assert len(stopped.doubtful) == 500
