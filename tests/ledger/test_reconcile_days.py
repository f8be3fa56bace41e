"""A bill by days: the difference is one signed row per backend, books stay whole, and twice is once."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.helpers import D0, DAY, HOUR, T0, entry

from spillway_router.core.money.budget import period_start
from spillway_router.core.money.tariff import NANO
from spillway_router.ledger.bills import BilledAttempt, DailyBill
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.reconcile import reconcile
from spillway_router.ledger.reconcile_days import ReconciledDay, reconcile_days
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing.ledger import MemoryLedger

DAY_0 = datetime.fromtimestamp(D0 / 1000, UTC).date()
AFTER = DAY_0 + timedelta(30)


def measured(request: str, nano: int, *, backend: str = "groq", ts: int = T0) -> tuple[Entry, ...]:
    """A call that came with its usage."""
    return (
        entry("reserved", request, ts=ts, backend=backend, reserved_nano=nano * 2),
        entry("charged", request, ts=ts + 1, backend=backend, amount_nano=nano, status="ok"),
    )


def unknown(request: str, bound_nano: int, *, backend: str = "groq", ts: int = T0) -> tuple[Entry, ...]:
    """A call whose end nobody saw: charged at its bound."""
    return (
        entry("reserved", request, ts=ts, backend=backend, reserved_nano=bound_nano),
        entry(
            "charged",
            request,
            ts=ts + 1,
            backend=backend,
            amount_nano=bound_nano,
            status="unknown",
            estimated_nano=bound_nano,
            at_most_nano=bound_nano,
        ),
    )


def billed(nano: int, day: date = DAY_0, account: str = "groq", *, is_backend: bool = False) -> DailyBill:
    return DailyBill(account, {day: Decimal(nano) / NANO}, is_backend)


def one(ledger: Ledger, bill: DailyBill, *backends: str, force: bool = False) -> ReconciledDay:
    (day,) = reconcile_days(ledger, bill, AFTER, backends, force=force)
    return day


def spent(ledger: Ledger, scope: str = "all", ts: int = T0) -> int:
    return ledger.balance(scope, "day", period_start("day", ts / 1000) * 1000).spent_nano


def booked(ledger: Ledger, backend: str) -> int:
    return sum(t.cost_nano for t in ledger.totals(D0, D0 + DAY) if t.group.backend == backend)


def test_unknown_calls_follow_the_bill_once() -> None:
    ledger = MemoryLedger()
    ledger.append((*measured("a", 5_000), *unknown("b", 9_000), *unknown("c", 9_000)))
    day = one(ledger, billed(11_500))
    assert (day.outcome, day.booked_nano, day.difference_nano, day.rows) == (
        "adjusted",
        23_000,
        -11_500,
        (("groq", -11_500),),
    )
    assert (day.unsure, day.estimated_nano, day.at_most_nano) == (2, 18_000, 18_000)
    assert spent(ledger) == spent(ledger, "backend:groq") == booked(ledger, "groq") == 11_500
    again = one(ledger, billed(11_500))
    assert (again.outcome, again.rows) == ("already", ())
    adjustments = [e for e in ledger.entries_between(0, 2**62) if e.kind == "adjusted"]
    assert [(e.amount_nano, e.decision, e.reasons, e.key_id, e.model) for e in adjustments] == [
        (-11_500, "bill", "bill", "", "")
    ]


def test_a_corrected_bill_adds_only_what_is_new() -> None:
    ledger = MemoryLedger()
    ledger.append((*measured("a", 5_000), *unknown("b", 9_000)))
    assert one(ledger, billed(6_000)).rows == (("groq", -8_000),)
    assert one(ledger, billed(7_500)).rows == (("groq", 1_500),)
    assert (spent(ledger), one(ledger, billed(7_500)).outcome) == (7_500, "already")


@pytest.mark.parametrize("nano", [4_999, 14_001, 0, -100])
def test_what_unknown_calls_cannot_explain_needs_force(nano: int) -> None:
    ledger = MemoryLedger()
    ledger.append((*measured("a", 5_000), *unknown("b", 9_000)))
    assert one(ledger, billed(nano)).outcome == "contradicts"
    assert spent(ledger) == 14_000
    assert one(ledger, billed(nano), force=True).outcome == "adjusted"
    assert spent(ledger) == booked(ledger, "groq") == nano  # a credit may be more than the day's calls
    assert one(ledger, billed(nano)).outcome == "already"


def test_what_was_adjusted_before_does_not_widen_what_unknown_calls_explain() -> None:
    ledger = MemoryLedger()
    ledger.append((*measured("a", 5_000), *unknown("b", 9_000)))
    assert one(ledger, billed(5_000)).outcome == "adjusted"
    assert one(ledger, billed(4_999)).outcome == "contradicts"
    assert one(ledger, billed(14_000)).outcome == "adjusted"


def test_several_backends_of_an_account_share_the_difference_exactly() -> None:
    ledger = MemoryLedger()
    ledger.append((*unknown("a", 1_000, backend="one"), *unknown("b", 2_000, backend="two")))
    ledger.append(measured("c", 500, backend="two"))
    day = one(ledger, billed(1_501))
    assert dict(day.rows) == {"one": -667, "two": -1_332}
    assert sum(nano for _, nano in day.rows) == -1_999
    assert spent(ledger) == 1_501
    assert spent(ledger, "backend:one") == booked(ledger, "one") == 333


def test_an_account_may_pay_for_some_backends_only() -> None:
    ledger = MemoryLedger()
    ledger.append((*unknown("a", 1_000, backend="mine"), *unknown("b", 2_000, backend="theirs")))
    assert one(ledger, billed(400), "mine").rows == (("mine", -600),)
    assert one(ledger, billed(1_000, account="theirs", is_backend=True)).rows == (("theirs", -1_000),)
    assert spent(ledger) == 1_400


def test_days_are_told_apart() -> None:
    ledger = MemoryLedger()
    ledger.append(
        (*unknown("a", 1_000), *unknown("late", 3_000, ts=T0 + DAY), *unknown("today", 5_000, ts=T0 + 2 * DAY))
    )
    days = {DAY_0: Decimal(0), DAY_0 + timedelta(2): Decimal(0), DAY_0 - timedelta(1): Decimal(1)}
    done = reconcile_days(ledger, DailyBill("groq", days), DAY_0 + timedelta(2))
    assert [(one.day, one.outcome) for one in done] == [
        ((DAY_0 - timedelta(1)).isoformat(), "no calls"),
        (DAY_0.isoformat(), "adjusted"),
        ((DAY_0 + timedelta(1)).isoformat(), "not in the bill"),
        ((DAY_0 + timedelta(2)).isoformat(), "not over"),
    ]
    assert (spent(ledger), spent(ledger, ts=T0 + DAY), spent(ledger, ts=T0 + 2 * DAY)) == (0, 3_000, 5_000)


def test_local_work_and_the_callers_own_keys_are_on_no_bill_of_ours() -> None:
    ledger = MemoryLedger()
    ledger.append((entry("charged", "own", status="ok", decision="byok"),))
    ledger.append((entry("charged", "near", status="ok", local=True),))
    assert one(ledger, billed(5_000), force=True).outcome == "no calls"


def test_a_measured_call_follows_its_bill_with_force_only() -> None:
    ledger = MemoryLedger()
    ledger.append(measured("a", 5_000))
    bill = [BilledAttempt("a", 1, 4_500)]
    assert [one.outcome for one in reconcile(ledger, bill, T0 + DAY)] == ["not unknown"]
    assert [one.outcome for one in reconcile(ledger, bill, T0 + DAY, force=True)] == ["adjusted"]
    assert [one.outcome for one in reconcile(ledger, bill, T0 + DAY)] == ["already"]
    assert spent(ledger) == booked(ledger, "groq") == 4_500


CALLS = st.lists(
    st.tuples(
        st.integers(0, 3 * 24 - 1),  # the hour
        st.sampled_from(["one", "two"]),
        st.booleans(),  # unknown
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=25, deadline=None)
@given(calls=CALLS, bills=st.lists(st.tuples(st.integers(0, 2), st.integers(-(10**9), 10**10)), max_size=5))
def test_budgets_and_reports_agree_whatever_is_billed(
    calls: list[tuple[int, str, bool, int]], bills: list[tuple[int, int]]
) -> None:
    with TemporaryDirectory() as folder, closing(SqliteLedger.open(Path(folder) / "ledger.db")) as ledger:
        for i, (hour, backend, is_unknown, nano) in enumerate(calls):
            make = unknown if is_unknown else measured
            ledger.append(make(f"r{i}", nano, backend=backend, ts=D0 + hour * HOUR))
        ledger.sum_up(5)
        for offset, nano in bills:
            day = DAY_0 + timedelta(offset)
            force = nano % 2 == 0
            done = one(ledger, billed(nano, day), force=force)
            assert done.outcome in ("adjusted", "already", "no calls", "contradicts")
            assert not (force and done.outcome == "contradicts")
            if done.outcome in ("adjusted", "already"):
                assert _cost(ledger, offset, "one") + _cost(ledger, offset, "two") == nano
                assert one(ledger, billed(nano, day)).outcome == "already"
        for offset in range(3):
            start_ms = D0 + offset * DAY
            each = [_cost(ledger, offset, backend) for backend in ("one", "two")]
            assert ledger.balance("all", "day", start_ms).spent_nano == sum(each)
            assert [ledger.balance(f"backend:{b}", "day", start_ms).spent_nano for b in ("one", "two")] == each
        ledger.sum_up(1000)
        assert verify(ledger).faults == ()


def _cost(ledger: Ledger, offset: int, backend: str) -> int:
    start_ms = D0 + offset * DAY
    return sum(t.cost_nano for t in ledger.totals(start_ms, start_ms + DAY) if t.group.backend == backend)
