"""Budgets: what a router knows of the balances follows its own holds and charges, and every change of period."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from spillway_router.core.money.budget import (
    EACH_KEY,
    BudgetError,
    BudgetLine,
    BudgetState,
    LineBalance,
    LineKey,
    Spender,
    alerts,
    covering,
    covers,
    headroom,
    lines_for,
    moved,
    opening,
    period_end,
    period_start,
    refreshed,
    rolled,
    taken_at_least,
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


def keys(state: BudgetState, spender: Spender) -> list[LineKey]:
    return [line.key for line in covering(state.lines, spender)]


@dataclass(frozen=True)
class Hold:
    """What the test itself knows of a hold."""

    spender: Spender
    amount: int
    at: float


class Budgets(RuleBasedStateMachine):
    """Compares the state with a plain list of everything that was held and charged."""

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
    def hold(self, spender: Spender, amount: int) -> Hold:
        self.state = moved(rolled(self.state, self.now), keys(self.state, spender), self.now, reserved_nano=amount)
        hold = Hold(spender, amount, self.now)
        self.open.append(hold)
        return hold

    @rule(hold=consumes(holds), share=st.floats(0, 1))
    def settle(self, hold: Hold, share: float) -> None:
        actual = int(hold.amount * share)
        self.state = moved(
            self.state, keys(self.state, hold.spender), hold.at, reserved_nano=-hold.amount, spent_nano=actual
        )
        self.open.remove(hold)
        self.closed.append((hold, actual))

    @invariant()
    def balances_and_headroom_are_what_was_held_and_spent(self) -> None:
        lines = getattr(self, "lines", [])
        for line in lines:
            balance = self.state.balances[line.key]

            def here(hold: Hold, line: BudgetLine = line, start: int = balance.period_start_s) -> bool:
                return covers(line.scope, hold.spender) and period_start(line.period, hold.at) == start

            assert balance.reserved_nano == sum(hold.amount for hold in self.open if here(hold))
            assert balance.spent_nano == sum(actual for hold, actual in self.closed if here(hold))
        if lines:
            covered = [line for line in lines if covers(line.scope, ANYONE)]
            now = rolled(self.state, self.now)
            rooms = [line.limit_nano - now.balances[line.key].taken_nano for line in covered]
            assert headroom(self.state, ANYONE, self.now) == (max(0, min(rooms)) if rooms else None)


Budgets.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBudgets = Budgets.TestCase


def test_headroom_is_that_of_the_line_with_the_least_room() -> None:
    lines = [DAY, BudgetLine("tier:free", "hour", 100), BudgetLine("key:other", "hour", 1)]
    state = opening(lines, NOON)
    assert [line.scope for line in covering(lines, ANYONE)] == ["all", "tier:free"]
    assert headroom(moved(state, keys(state, ANYONE), NOON, spent_nano=60), ANYONE, NOON) == 40


def test_a_hold_of_yesterday_settles_yesterday() -> None:
    state = moved(opening([DAY], NOON), [DAY.key], NOON, reserved_nano=1000)
    tomorrow = NOON + 86400
    state = moved(rolled(state, tomorrow), [DAY.key], tomorrow, reserved_nano=400)
    state = moved(state, [DAY.key], NOON, reserved_nano=-1000, spent_nano=900)
    assert state.balances[DAY.key] == LineBalance(period_start("day", tomorrow), spent_nano=0, reserved_nano=400)


def test_a_clock_that_goes_back_opens_no_second_day() -> None:
    state = moved(opening([DAY], NOON), [DAY.key], NOON, spent_nano=900)
    assert headroom(state, ANYONE, NOON - 86400) == 100


def test_a_provider_that_bills_above_the_bound_is_recorded_and_stops_the_line() -> None:
    state = moved(opening([DAY], NOON), [DAY.key], NOON, reserved_nano=1000)
    state = moved(state, [DAY.key], NOON, reserved_nano=-1000, spent_nano=1200)
    assert state.balances[DAY.key].spent_nano == 1200
    assert headroom(state, ANYONE, NOON) == 0


def test_balances_of_the_ledger_count_from_the_first_second() -> None:
    start = period_start("day", NOON)
    state = opening([DAY], NOON, {DAY.key: LineBalance(start, spent_nano=500, reserved_nano=300)})
    assert headroom(state, ANYONE, NOON) == 200
    yesterday = opening([DAY], NOON, {DAY.key: LineBalance(start - 86400, spent_nano=500)})
    assert headroom(yesterday, ANYONE, NOON) == 1000


def test_balances_read_again_replace_what_was_known() -> None:
    start = period_start("day", NOON)
    state = moved(opening([DAY], NOON), [DAY.key], NOON, reserved_nano=700)
    state = refreshed(state, {DAY.key: LineBalance(start, 10, 20), ("all", "hour"): LineBalance(start, 1)})
    assert state.balances == {DAY.key: LineBalance(start, 10, 20)}
    assert refreshed(state, {DAY.key: LineBalance(start - 86400, 999)}) == state
    # A settlement that the database told already doesn't make room twice.
    assert moved(state, [DAY.key], NOON, reserved_nano=-700, spent_nano=0).balances[DAY.key] == LineBalance(
        start, 10, 0
    )


def test_what_a_refusal_of_the_database_says_is_known_from_then_on() -> None:
    start = period_start("day", NOON)
    state = moved(opening([DAY], NOON), [DAY.key], NOON, reserved_nano=100)
    state = taken_at_least(state, DAY.key, start, 990)
    assert state.balances[DAY.key] == LineBalance(start, 890, 100)
    assert taken_at_least(state, DAY.key, start, 500) == state
    assert taken_at_least(state, DAY.key, start - 86400, 2000) == state
    assert taken_at_least(state, ("key:gone", "day"), start, 2000) == state


ALERTING = BudgetLine("all", "day", 1000, (Decimal(1), Decimal("0.5"), Decimal("0.8")))


def balance(spent_nano: int, reserved_nano: int = 0, start_s: int = 0) -> LineBalance:
    return LineBalance(start_s, spent_nano, reserved_nano)


def test_alerts_tell_each_threshold_once_a_period() -> None:
    assert alerts([(ALERTING, balance(0))], frozenset()) == ()
    due = alerts([(ALERTING, balance(850))], frozenset())
    assert [(alert.at, alert.spent_nano) for alert in due] == [(Decimal("0.5"), 850), (Decimal("0.8"), 850)]
    sent = {alert.key for alert in due}
    assert alerts([(ALERTING, balance(850))], sent) == ()
    assert [alert.at for alert in alerts([(ALERTING, balance(500, start_s=86400))], sent)] == [Decimal("0.5")]


def test_a_hold_raises_no_alert_and_is_named_beside_what_is_spent() -> None:
    assert alerts([(ALERTING, balance(0, 1000))], frozenset()) == ()
    [alert] = alerts([(ALERTING, balance(500, 400))], frozenset())
    assert (alert.spent_nano, alert.held_nano) == (500, 400)


def test_another_cap_has_alerts_of_its_own() -> None:
    sent = {alert.key for alert in alerts([(ALERTING, balance(900))], frozenset())}
    smaller = replace(ALERTING, limit_nano=900)
    assert [alert.at for alert in alerts([(smaller, balance(900))], sent)] == [
        Decimal("0.5"),
        Decimal("0.8"),
        Decimal(1),
    ]


def test_a_refused_call_raises_the_last_alert_where_alerts_are_wanted() -> None:
    half = replace(ALERTING, alert_at=(Decimal("0.5"),))
    refused = {(*half.key, balance(0).period_start_s)}
    [alert] = alerts([(half, balance(100, 850))], frozenset(), refused)
    assert (alert.at, alert.refused, alert.spent_nano) == (Decimal(1), True, 100)
    assert alerts([(half, balance(100))], {alert.key}, refused) == ()
    assert alerts([(replace(half, alert_at=()), balance(100))], frozenset(), refused) == ()
    assert alerts([(replace(half, limit_nano=0), balance(0))], frozenset(), refused) == ()
    assert alerts([(half, balance(0, start_s=86400))], frozenset(), refused) == ()


def test_a_key_has_the_caps_of_each_key_unless_it_has_its_own() -> None:
    each = (BudgetLine(EACH_KEY, "day", 10, (Decimal(1),)), BudgetLine(EACH_KEY, "month", 100))
    own = BudgetLine("key:vip", "day", 1000)
    assert [(line.scope, line.period, line.limit_nano) for line in lines_for("key:k1", each, (own,))] == [
        ("key:k1", "day", 10),
        ("key:k1", "month", 100),
    ]
    assert [(line.period, line.label) for line in lines_for("key:vip", each, (own,))] == [("month", EACH_KEY)]


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
