"""Budgets hold for every order of reserving, settling and releasing, over every change of period."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spillway_router.core.budget import (
    BudgetError,
    BudgetLine,
    BudgetRefused,
    BudgetState,
    LineBalance,
    Reservation,
    Spender,
    alerts,
    covers,
    headroom,
    opening,
    period_end,
    period_start,
    release,
    settle,
    try_reserve,
    with_lines,
)

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()
DAY = BudgetLine("all", "day", 1000)
ANYONE = Spender("groq", "k1", "free")

SCOPES = ["all", "backend:groq", "backend:openai", "key:k1", "key:k2", "tier:free", "tier:paid"]
lines_of_any_kind = st.lists(
    st.builds(
        BudgetLine,
        scope=st.sampled_from(SCOPES),
        period=st.sampled_from(["hour", "day", "month"]),
        limit_nano=st.integers(0, 2000),
    ),
    max_size=6,
    unique_by=lambda line: line.key,
)
spenders = st.builds(
    Spender,
    backend=st.sampled_from(["groq", "openai", "mine"]),
    key_id=st.sampled_from(["k1", "k2", ""]),
    tier=st.sampled_from(["free", "paid", ""]),
)


@dataclass(frozen=True)
class Hold:
    """What the test itself knows of a hold."""

    reservation: Reservation
    spender: Spender
    amount: int
    at: float


class Budgets(RuleBasedStateMachine):
    """Compares the state with a plain list of everything that was reserved and settled."""

    holds = Bundle("holds")

    @initialize(lines=lines_of_any_kind)
    def begin(self, lines: list[BudgetLine]) -> None:
        self.now = NOON
        self.lines = lines
        self.state = opening(lines, self.now)
        self.open: list[Hold] = []
        self.closed: list[tuple[Hold, int]] = []

    @rule(seconds=st.sampled_from([0, 1, 600, 3600, 86400, 40 * 86400]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(target=holds, spender=spenders, amount=st.integers(0, 700))
    def reserve(self, spender: Spender, amount: int) -> Hold | None:
        room = headroom(self.state, spender, self.now)
        self.state, got = try_reserve(self.state, spender, amount, self.now)
        if isinstance(got, BudgetRefused):
            assert room is not None
            assert amount > room
            assert got.resets_at > self.now
            return None
        assert room is None or amount <= room
        hold = Hold(got, spender, amount, self.now)
        self.open.append(hold)
        return hold

    @rule(hold=consumes(holds), share=st.floats(0, 1))
    def settle(self, hold: Hold | None, share: float) -> None:
        if hold is not None:
            actual = int(hold.amount * share)
            self.state = settle(self.state, hold.reservation, actual)
            assert settle(self.state, hold.reservation, actual) == self.state  # twice is once
            self.open.remove(hold)
            self.closed.append((hold, actual))

    @rule(hold=consumes(holds))
    def release(self, hold: Hold | None) -> None:
        if hold is not None:
            self.state = release(self.state, hold.reservation)
            self.open.remove(hold)

    @invariant()
    def balances_are_what_was_reserved_and_spent_and_never_pass_the_limit(self) -> None:
        for line in getattr(self, "lines", []):
            balance = self.state.balances[line.key]

            def here(hold: Hold, line: BudgetLine = line, start: int = balance.period_start) -> bool:
                return covers(line.scope, hold.spender) and period_start(line.period, hold.at) == start

            assert balance.reserved == sum(hold.amount for hold in self.open if here(hold))
            assert balance.spent == sum(actual for hold, actual in self.closed if here(hold))
            assert balance.taken <= line.limit_nano


Budgets.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBudgets = Budgets.TestCase


def reserve(state: BudgetState, amount: int, now: float = NOON) -> tuple[BudgetState, Reservation]:
    state, got = try_reserve(state, ANYONE, amount, now)
    assert isinstance(got, Reservation)
    return state, got


def test_a_refusal_names_the_line_its_room_and_its_end() -> None:
    state = opening([DAY, BudgetLine("tier:free", "hour", 100)], NOON)
    state, _ = reserve(state, 60)
    same, refused = try_reserve(state, ANYONE, 41, NOON + 60)
    assert same == state
    assert refused == BudgetRefused("tier:free", "hour", 100, 60, 41, int(NOON) + 3600)


def test_a_hold_of_yesterday_settles_yesterday() -> None:
    state, hold = reserve(opening([DAY], NOON), 1000)
    tomorrow = NOON + 86400
    state, later = reserve(state, 400, tomorrow)
    state = settle(state, hold, 900)
    assert state.balances[DAY.key] == LineBalance(period_start("day", tomorrow), spent=0, reserved=400)
    assert settle(state, later, 300).balances[DAY.key].spent == 300


def test_a_clock_that_goes_back_opens_no_second_day() -> None:
    state, _ = reserve(opening([DAY], NOON), 900)
    _, refused = try_reserve(state, ANYONE, 200, NOON - 86400)
    assert isinstance(refused, BudgetRefused)


def test_a_provider_that_bills_above_the_bound_is_recorded_and_stops_the_line() -> None:
    state, hold = reserve(opening([DAY], NOON), 1000)
    state = settle(state, hold, 1200)
    assert state.balances[DAY.key].spent == 1200
    assert headroom(state, ANYONE, NOON) == 0
    _, refused = try_reserve(state, ANYONE, 1, NOON)
    assert isinstance(refused, BudgetRefused)


def test_balances_of_the_ledger_count_from_the_first_second() -> None:
    start = period_start("day", NOON)
    state = opening([DAY], NOON, {DAY.key: LineBalance(start, spent=500, reserved=300)})
    assert headroom(state, ANYONE, NOON) == 200
    yesterday = opening([DAY], NOON, {DAY.key: LineBalance(start - 86400, spent=500)})
    assert headroom(yesterday, ANYONE, NOON) == 1000


def test_a_reload_keeps_spend_and_open_holds() -> None:
    state, hold = reserve(opening([DAY], NOON), 600)
    lower = BudgetLine("all", "day", 500)
    fresh = BudgetLine("key:k1", "month", 50)
    state = with_lines(state, [lower, fresh], NOON)
    assert headroom(state, ANYONE, NOON) == 0
    state = settle(state, hold, 100)
    assert headroom(state, ANYONE, NOON) == 50
    assert state.balances[lower.key].spent == 100


def test_alerts_tell_each_threshold_that_was_passed() -> None:
    line = BudgetLine("all", "day", 1000, (Decimal("0.5"), Decimal("0.8"), Decimal(1)))
    before = opening([line], NOON)
    after, hold = reserve(before, 850)
    assert [alert.at for alert in alerts(before, after)] == [Decimal("0.5"), Decimal("0.8")]
    assert alerts(after, settle(after, hold, 840)) == ()
    next_day, _ = reserve(after, 500, NOON + 86400)
    assert [alert.at for alert in alerts(after, next_day)] == [Decimal("0.5")]


@given(st.sampled_from(["hour", "day", "month"]), st.integers(0, 4_000_000_000))
def test_every_moment_is_in_exactly_one_period(period: str, now: int) -> None:
    start = period_start(period, now)  # type: ignore[arg-type]
    end = period_end(period, start)  # type: ignore[arg-type]
    assert start <= now < end
    assert period_start(period, end) == end  # type: ignore[arg-type]
    assert period_start(period, end - 1) == start  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", ["", "everyone", "key:", "tier", "backend:", "model:x"])
def test_unknown_scopes_are_refused(scope: str) -> None:
    with pytest.raises(BudgetError, match="scope"):
        BudgetLine(scope, "day", 1)


def test_lines_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BudgetError, match="negative"):
        BudgetLine("all", "day", -1)
    with pytest.raises(BudgetError, match="alert_at"):
        BudgetLine("all", "day", 1, (Decimal(2),))
    with pytest.raises(BudgetError, match="same scope"):
        opening([DAY, BudgetLine("all", "day", 5)], NOON)
