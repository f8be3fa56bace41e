"""Accounts: caps are judged by the database, holds never leak, and what ends a hold is never given up."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.scenes import GROQ, LOCAL, facts
from tests.ledger.helpers import (
    CHEAP,
    DAY_MS,
    NOON,
    OVERFLOW,
    T0,
    WAIT_S,
    FaultyDisk,
    RouterAccounts,
    entry,
    faulty_disk,
    requests_in,
    router_accounts,
    until,
)

from spillway_router.core.money.attribution import WorkCoefficients, work_share_us
from spillway_router.core.money.budget import (
    EACH_KEY,
    EACH_USER,
    BudgetLine,
    Period,
    Spender,
    covering,
    headroom,
    moved,
    opening,
    period_start,
)
from spillway_router.core.money.tariff import Usage
from spillway_router.core.money.users import user_id
from spillway_router.core.routing.model import Caller, KeyRules
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold, HoldRefused
from spillway_router.ledger.orphans import SILENT_MS, close_orphans, unknown_charge
from spillway_router.ledger.records import Balance
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.ledger.writer import LedgerWriter
from spillway_router.testing import MemoryLedger

DAY = BudgetLine("all", "day", 1000, (Decimal("0.5"), Decimal(1)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path) as opened:
        yield opened


async def test_a_hold_is_on_disk_and_its_settlement_replaces_it(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        assert router.balance() == Balance(0, 100_000)
        assert ledger.open_reservations(0, 2**62)[0].router_id == "me"
        assert await router.settle(hold, CHEAP) == 70_000
        assert router.balance() == Balance(70_000, 0)
        hold = await router.held("r2", 5)
        assert await router.settle(hold, AttemptResult("error", None, billed=True)) == 5
        hold = await router.held("r3", 5)
        assert await router.settle(hold, AttemptResult("error", None, billed=False)) == 0
        hold = await router.held("r4", 5)
        router.accounts.release(hold)
        assert [e.kind for e in ledger.entries_of("r3")] == ["reserved", "released"]
    assert [(e.kind, e.status) for e in ledger.entries_of("r2")] == [("reserved", ""), ("charged", "unknown")]
    assert ledger.open_reservations(0, 2**62) == ()


async def test_a_local_attempt_has_one_row_and_no_hold(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, BudgetLine("all", "day", 0)) as router:
        hold = await router.accounts.hold(facts(request_id="r1"), LOCAL, AttemptReason("local", ()), 1, 0)
        assert isinstance(hold, Hold)
        router.accounts.release(hold)
        assert await router.settle(hold, CHEAP) == 0
    (row,) = ledger.entries_of("r1")
    assert (row.kind, row.local, row.amount_nano, row.gpu_us > 0) == ("charged", True, 0, True)


async def test_the_database_has_the_last_word_though_the_state_here_is_stale(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        other = unknown_charge(entry_of_groq("else")._replace(reserved_nano=900))
        ledger.append((other,))  # another process; nothing here knows of it
        assert router.accounts.headroom(facts(), GROQ) == 1000
        refused = await router.hold("r1", 101)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "budget"
        assert "day budget" in refused.message
        assert ledger.entries_of("r1") == ()
        assert router.accounts.headroom(facts(), GROQ) == 100  # learnt from the refusal
        assert isinstance(await router.hold("r2", 100), Hold)
        assert router.balance() == Balance(900, 100)


async def test_the_headroom_of_several_backends_is_that_of_each(ledger: FaultyDisk) -> None:
    tier = BudgetLine("tier:paid", "hour", 500)
    lines = (BudgetLine("backend:groq", "day", 300), tier, BudgetLine("all", "month", 900))
    async with router_accounts(ledger, *lines) as router:
        paid, backends = facts(caller=Caller(key_id="k1", tier="paid")), ("groq", "openai")
        assert router.accounts.headrooms(paid, backends) == {"groq": 300, "openai": 500}
        assert router.accounts.headrooms(facts(), backends) == {"groq": 300, "openai": 900}
        own = replace(paid, caller=replace(paid.caller, rules=KeyRules(budget=BudgetLine("key:k1", "day", 200))))
        assert router.accounts.headrooms(own, backends) == {"groq": 200, "openai": 200}
        hold = await router.hold("r1", 250)
        assert isinstance(hold, Hold)
        assert router.accounts.headrooms(paid, backends) == {"groq": 50, "openai": 500}
        assert router.accounts.headrooms(facts(), backends) == {"groq": 50, "openai": 650}
    async with router_accounts(ledger, BudgetLine("backend:groq", "day", 300)) as router:
        assert router.accounts.headrooms(facts(), backends) == {"groq": 50, "openai": None}


async def test_many_holds_at_once_never_pass_the_cap(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        holds = await asyncio.gather(*(router.hold(f"r{i}", 70) for i in range(64)))
        assert sum(isinstance(hold, Hold) for hold in holds) == 1000 // 70
        assert router.balance() == Balance(0, 1000 // 70 * 70)


async def test_caps_cover_the_caller_and_a_clock_that_goes_back_opens_no_second_day(ledger: FaultyDisk) -> None:
    async with router_accounts(
        ledger, BudgetLine("key:k1", "day", 500), BudgetLine("backend:openai", "day", 0)
    ) as router:
        assert isinstance(await router.hold("r1", 400, key_id="k1"), Hold)
        assert isinstance(await router.hold("r2", 200, key_id="k1"), HoldRefused)
        assert isinstance(await router.hold("r3", 200, key_id="k2"), Hold)
        router.wall_s = NOON - 86_400
        assert isinstance(await router.hold("r4", 200, key_id="k1"), HoldRefused)
        router.wall_s = NOON + 86_400
        assert isinstance(await router.hold("r5", 200, key_id="k1"), Hold)


async def test_a_client_that_leaves_while_its_hold_is_on_the_way_leaves_none_behind(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        ledger.allowed.clear()
        task = asyncio.ensure_future(router.hold("r1", 300))
        assert await asyncio.to_thread(ledger.reached.wait, WAIT_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ledger.allowed.set()
    assert [e.kind for e in ledger.entries_of("r1")] == ["reserved", "released"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(0, 0)


async def test_a_broken_disk_stops_paid_calls_and_owes_what_ends_a_hold(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        hold = await router.held("r1", 100_000)
        ledger.broken = True
        assert await router.settle(hold, CHEAP) == 70_000
        assert router.accounts.owed_rows == 1
        refused = await router.hold("r2", 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        free = await router.accounts.hold(facts(request_id="free"), LOCAL, OVERFLOW, 1, 0)
        assert isinstance(free, Hold)
        assert await router.settle(free, CHEAP) == 0
        assert len(router.writer.journal) == 2
        ledger.broken = False
        await until(lambda: not router.writer.health.degraded)
        assert (router.accounts.owed_rows, len(router.writer.journal), router.accounts.lost_rows) == (0, 0, 0)
    assert [row.kind for row in ledger.entries_of("free")] == ["charged"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert ledger.open_reservations(0, 2**62) == ()


async def test_upkeep_sums_up_new_rows_and_of_a_long_ledger_a_bounded_part(ledger: FaultyDisk) -> None:
    def left() -> int:
        return int(ledger._read("SELECT (SELECT max(seq) FROM entries) - summed_seq FROM marks", ())[0][0])

    for part in range(3):
        ledger.append([entry("charged", f"r{part}-{i}", local=True, status="ok") for i in range(100)])
    async with router_accounts(ledger) as router:
        router.upkeep.rows_to_sum, router.upkeep.chunks_per_round = 50, 5
        await router.upkeep.sum_up()
        assert left() == 50
        await router.upkeep.sum_up()
        assert left() == 0
    assert requests_in(ledger, 0, T0 * 2) == 300


async def test_a_full_queue_refuses_holds_but_takes_what_ends_them(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        small = LedgerWriter(ledger, max_rows=1)
        accounts = Accounts(
            writer=small,
            lines=(),
            coefficients=WorkCoefficients(),
            wall=lambda: NOON,
            on_alert=router.alerts.append,
            router_id="me",
        )
        hold = await accounts.hold(facts(request_id="r1"), GROQ, OVERFLOW, 1, 5)
        assert isinstance(hold, Hold)
        ledger.allowed.clear()
        waiting = asyncio.ensure_future(accounts.hold(facts(request_id="r2"), GROQ, OVERFLOW, 1, 5))
        await asyncio.sleep(0)
        refused = await accounts.hold(facts(request_id="r3"), GROQ, OVERFLOW, 1, 5)
        assert isinstance(refused, HoldRefused)
        assert refused.code == "ledger"
        accounts.release(hold)
        ledger.allowed.set()
        assert isinstance(await waiting, Hold)
        assert await small.close(WAIT_S)
    assert [e.request_id for e in ledger.open_reservations(0, 2**62)] == ["r2"]


async def spend(router: RouterAccounts, request_id: str, nano: int) -> None:
    """Hold that much and be charged all of it, as nobody tells the usage."""
    await router.settle(await router.held(request_id, nano), AttemptResult("ok", None))


def shares(router: RouterAccounts) -> list[Decimal]:
    return [alert.at for alert in router.alerts]


async def test_alerts_are_told_once_whoever_spent(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        router.accounts.release(await router.held("r0", 900))
        await router.upkeep.tend()
        assert router.alerts == []  # a hold is no spending
        await spend(router, "r1", 600)
        await router.upkeep.tend()
        await router.upkeep.tend()
        assert shares(router) == [Decimal("0.5")]
        ledger.append((unknown_charge(entry_of_groq("else")._replace(reserved_nano=400)),))
        await router.upkeep.tend()
        assert shares(router) == [Decimal("0.5"), Decimal(1)]
        router.wall_s += 86_400
        await spend(router, "r3", 600)
        await router.upkeep.tend()
        assert shares(router) == [Decimal("0.5"), Decimal(1), Decimal("0.5")]


async def test_an_alert_is_told_by_one_of_several_routers_and_not_again_after_a_restart(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY, router_id="a") as one, router_accounts(ledger, DAY, router_id="b") as other:
        await spend(one, "r1", 600)
        await asyncio.gather(one.upkeep.tend(), other.upkeep.tend())
        assert shares(one) + shares(other) == [Decimal("0.5")]
    async with router_accounts(ledger, DAY, router_id="c") as restarted:
        await restarted.upkeep.tend()
        assert restarted.alerts == []
    async with router_accounts(ledger, replace(DAY, limit_nano=1200), router_id="d") as raised:
        await raised.upkeep.tend()
        assert shares(raised) == [Decimal("0.5")]  # another cap


async def test_a_refused_hold_tells_that_the_budget_is_full(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        await router.held("r1", 900)
        assert isinstance(await router.hold("r2", 200), HoldRefused)
        await router.upkeep.tend()
        [alert] = router.alerts
        assert (alert.at, alert.refused, alert.spent_nano, alert.held_nano) == (Decimal(1), True, 0, 900)


MIDNIGHT = NOON + 43_200
"""The start of the next day (epoch seconds)."""


async def test_what_is_spent_of_a_day_that_is_over_raises_the_alerts_of_that_day(ledger: FaultyDisk) -> None:
    month = BudgetLine("all", "month", 10_000, (Decimal("0.1"),))
    async with router_accounts(ledger, DAY, month) as router:
        router.wall_s = MIDNIGHT - 0.5
        stream = await router.held("r1", 600)
        await spend(router, "r2", 400)
        router.wall_s = MIDNIGHT + 0.5
        await router.settle(stream, AttemptResult("ok", None))
        await router.upkeep.tend()
        raised = {(alert.period, alert.at, alert.period_start_s, alert.spent_nano) for alert in router.alerts}
        assert raised == {
            ("day", Decimal("0.5"), MIDNIGHT - 86_400, 1000),
            ("day", Decimal(1), MIDNIGHT - 86_400, 1000),
            ("month", Decimal("0.1"), period_start("month", NOON), 1000),
        }
        await router.upkeep.tend()
        assert len(router.alerts) == 3


async def test_a_call_refused_before_midnight_is_told_of_the_day_that_had_no_room(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        router.wall_s = MIDNIGHT - 0.5
        await router.held("r1", 900)
        assert isinstance(await router.hold("r2", 200), HoldRefused)
        router.wall_s = MIDNIGHT + 0.5
        await router.upkeep.tend()
        [alert] = router.alerts
        assert (alert.refused, alert.period_start_s) == (True, MIDNIGHT - 86_400)
        await router.held("r3", 900)
        assert isinstance(await router.hold("r4", 200), HoldRefused)
        await router.upkeep.tend()
        assert [alert.period_start_s for alert in router.alerts] == [MIDNIGHT - 86_400, MIDNIGHT]


async def test_a_keys_alert_is_told_although_its_row_comes_after_a_look(ledger: FaultyDisk) -> None:
    each = BudgetLine(EACH_KEY, "day", 1000, (Decimal("0.5"),))
    async with router_accounts(ledger, each) as router:
        hold = await router.hold("r1", 600, key_id="k1")
        assert isinstance(hold, Hold)
        ledger.allowed.clear()  # no commit ends
        _, durable = router.accounts.settle(hold, hold.backend, AttemptResult("ok", None))
        await router.upkeep.tend()
        assert router.alerts == []
        ledger.allowed.set()
        await router.accounts.durable(durable)
        await until(lambda: ledger.balance("key:k1", "day", DAY_MS).spent_nano == 600)
        await router.upkeep.tend()
        assert [(alert.scope, alert.at) for alert in router.alerts] == [("key:k1", Decimal("0.5"))]


async def test_a_look_does_not_bring_back_a_hold_whose_end_is_on_its_way(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        for end in ("settled", "released"):
            hold = await router.held(end, 900)
            ledger.allowed.clear()  # no commit ends
            if end == "settled":
                _, durable = router.accounts.settle(hold, hold.backend, AttemptResult("error", None, billed=False))
            else:
                router.accounts.release(hold)
            await router.upkeep.tend()
            assert router.accounts.headroom(facts(), GROQ) == 1000
            ledger.allowed.set()
            await router.accounts.durable(durable)
            await until(lambda: ledger.open_reservations(0, 2**62) == ())
            await router.upkeep.tend()
            assert router.accounts.headroom(facts(), GROQ) == 1000


async def test_an_alert_that_could_not_be_claimed_is_told_later(
    ledger: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with router_accounts(ledger, DAY) as router:
        await router.held("r1", 900)
        assert isinstance(await router.hold("r2", 200), HoldRefused)
        with monkeypatch.context() as patch:
            patch.setattr(ledger.alerts, "claim", Mock(side_effect=LedgerUnavailableError("away")))
            with pytest.raises(LedgerUnavailableError):
                await router.upkeep.tend()
        await router.upkeep.tend()
        assert shares(router) == [Decimal(1)]


async def test_every_key_has_the_cap_of_each_key_for_itself(ledger: FaultyDisk) -> None:
    each = BudgetLine(EACH_KEY, "day", 1000, (Decimal("0.5"),))
    async with router_accounts(ledger, each) as router:
        for key in ("k1", "k2"):
            hold = await router.hold(f"first-{key}", 600, key_id=key)
            assert isinstance(hold, Hold)
            await router.settle(hold, AttemptResult("ok", None))
            refused = await router.hold(f"second-{key}", 600, key_id=key)
            assert isinstance(refused, HoldRefused)
            assert f"for key:{key}" in refused.message
        assert isinstance(await router.hold("without", 5000), Hold)
        await router.upkeep.tend()
        raised = {(alert.scope, alert.at, alert.label) for alert in router.alerts}
        assert raised == {(f"key:{key}", at, EACH_KEY) for key in ("k1", "k2") for at in (Decimal("0.5"), Decimal(1))}
        assert router.accounts.has_budgets
        assert router.accounts.headroom(facts(caller=Caller(key_id="k3")), GROQ) == 1000
        assert router.accounts.headroom(facts(), GROQ) is None


async def test_every_user_of_every_key_has_the_cap_of_each_user(ledger: FaultyDisk) -> None:
    each = BudgetLine(EACH_USER, "day", 1000, (Decimal("0.5"),))
    users = {(key, name): user_id(key, name) for key in ("k1", "k2") for name in ("1", "")}
    assert len(set(users.values())) == 4
    async with router_accounts(ledger, each) as router:
        for (key, name), pseudonym in users.items():
            named = pseudonym if name else ""  # a request that names nobody belongs to the key's anonymous user
            hold = await router.hold(f"first-{key}-{name}", 600, user_id=named, key_id=key)
            assert isinstance(hold, Hold)
            await router.settle(hold, AttemptResult("ok", None))
            refused = await router.hold(f"second-{key}-{name}", 600, user_id=named, key_id=key)
            assert isinstance(refused, HoldRefused)
            assert f"for user:{pseudonym}" in refused.message
        await router.upkeep.tend()
        raised = {(alert.scope, alert.at, alert.label) for alert in router.alerts}
        assert raised == {
            (f"user:{one}", at, EACH_USER) for one in users.values() for at in (Decimal("0.5"), Decimal(1))
        }
        assert router.accounts.has_budgets
        assert router.accounts.headroom(facts(), GROQ) == 1000
    rows = list(ledger.entries_between(0, 2**62))
    assert {(row.kind, row.user_id) for row in rows} == {
        (k, u) for u in users.values() for k in ("reserved", "charged")
    }
    assert verify(ledger).holds


@settings(max_examples=30, deadline=None)
@given(
    calls=st.lists(
        st.tuples(st.sampled_from(["k1", "k2", ""]), st.sampled_from(["ann", "bob", ""]), st.integers(0, 400)),
        min_size=5,
        max_size=40,
    ),
    shares=st.lists(st.integers(0, 100), min_size=40, max_size=40),
)
def test_no_user_passes_the_cap_whatever_is_held_and_settled(
    calls: list[tuple[str, str, int]], shares: list[int]
) -> None:
    taken: dict[tuple[str, str], int] = defaultdict(int)

    async def spend() -> None:
        memory = MemoryLedger()
        writer = LedgerWriter(memory)
        accounts = Accounts(
            writer=writer,
            lines=(),
            coefficients=WorkCoefficients(),
            wall=lambda: NOON,
            on_alert=lambda _alert: None,
        )
        accounts.load(memory, [BudgetLine(EACH_USER, "day", 1000), BudgetLine("key:k1", "day", 1500)])

        async def call(number: int) -> None:
            key, name, bound = calls[number]
            request = facts(
                request_id=f"r{number}", caller=Caller(key_id=key), user_id=user_id(key, name) if name else ""
            )
            hold = await accounts.hold(request, GROQ, OVERFLOW, 1, bound)
            if isinstance(hold, Hold):
                cost = bound * shares[number] // 100
                accounts.settle(hold, GROQ, AttemptResult("ok", Usage(0, 0, told_nano=cost)))
                taken[key, name] += cost

        for at in range(0, len(calls), 5):
            await asyncio.gather(*map(call, range(at, min(at + 5, len(calls)))))
        assert await writer.close(WAIT_S)
        for (key, name), cost in taken.items():
            who = user_id(key, name)
            assert memory.balance(f"user:{who}", "day", DAY_MS) == Balance(cost, 0)
            assert cost <= 1000
        assert verify(memory).holds

    asyncio.run(spend())


async def test_without_a_cap_for_users_nothing_about_them_is_stored(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        hold = await router.hold("r1", 600, user_id=user_id("k1", "ann@example.com"), key_id="k1")
        assert isinstance(hold, Hold)
        await router.settle(hold, CHEAP)
    assert {row.user_id for row in ledger.entries_between(0, 2**62)} == {""}
    assert not any(scope.startswith("user:") for scope, _, _ in ledger.balances())


async def test_a_cap_of_each_user_costs_the_same_with_100_000_users(ledger: FaultyDisk) -> None:
    each = tuple(BudgetLine(EACH_USER, period, 10**12) for period in ("hour", "day", "month"))

    async def steps_of_a_hold(router: RouterAccounts, name: str) -> int:
        steps: list[int] = []
        ledger._writer.set_progress_handler(lambda: bool(steps.append(1)), 1)
        hold = await router.hold(name, 600, user_id=user_id("k1", name), key_id="k1")
        ledger._writer.set_progress_handler(None)
        assert isinstance(hold, Hold)
        return len(steps)

    async with router_accounts(ledger, *each) as router:
        await router.hold("first", 600, user_id=user_id("k1", "first"), key_id="k1")
        few = await steps_of_a_hold(router, "few")
        starts = {period: period_start(period, NOON) * 1000 for period in ("hour", "day", "month")}
        rows = (
            (f"user:{user_id('k1', str(n))}", p, start, 5, 0) for n in range(100_000) for p, start in starts.items()
        )
        with ledger._writer:
            ledger._writer.executemany("INSERT INTO balances VALUES (?, ?, ?, ?, ?)", rows)
        many = await steps_of_a_hold(router, "many")
        assert few <= many <= 1.05 * few + 10
        assert len(router.accounts.balances()) == 0


SCOPES = ("all", "backend:groq", "backend:other", "key:k1", "key:k2", "tier:free", "tier:paid")


@given(
    scopes=st.sets(
        st.sampled_from(["all", "backend:groq", "backend:other", "key:k1", "key:k2", "tier:free", "tier:paid"])
    ),
    period=st.sampled_from(["hour", "day", "month"]),
    spent=st.lists(st.integers(1, 300), max_size=3),
    key=st.sampled_from(["", "k1", "k2", "k3"]),
    tier=st.sampled_from(["", "free"]),
)
def test_the_headroom_is_that_of_all_lines_that_cover_the_caller(
    scopes: set[str], period: Period, spent: list[int], key: str, tier: str
) -> None:
    lines = [BudgetLine(scope, period, 100 * number + 400) for number, scope in enumerate(sorted(scopes))]
    asked = facts(caller=Caller(key_id=key, tier=tier))
    state, spender = opening(lines, NOON), Spender("groq", key, tier)
    for nano in spent:
        state = moved(state, [line.key for line in covering(lines, spender)], NOON, reserved_nano=nano)

    async def headroom_of_accounts() -> int | None:
        ledger = MemoryLedger()
        writer = LedgerWriter(ledger)
        accounts = Accounts(
            writer=writer,
            lines=(),
            coefficients=WorkCoefficients(),
            wall=lambda: NOON,
            on_alert=lambda _alert: None,
        )
        accounts.load(ledger, lines)
        for nano in spent:
            hold = Hold(asked, GROQ, OVERFLOW, attempt_no=1, held_ms=int(NOON * 1000), bound_nano=nano, stored=True)
            accounts._move(hold, reserved_nano=nano)
        left_nano = accounts.headroom(asked, GROQ)
        await writer.close(WAIT_S)
        return left_nano

    assert asyncio.run(headroom_of_accounts()) == headroom(state, spender, NOON)


async def test_what_costs_nothing_passes_where_the_budget_is_overspent(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        hold = await router.held("r1", 10)
        assert await router.settle(hold, CHEAP) == 70_000
        assert isinstance(await router.hold("r2", 1), HoldRefused)
        assert isinstance(await router.hold("free", 0), Hold)


async def test_a_charge_above_its_hold_is_reported_marked_and_found_by_verify(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, DAY) as router:
        hold = await router.held("r1", 10)
        await router.settle(hold, CHEAP)
        [excess] = router.excesses
        assert (excess.request_id, excess.charge_nano, excess.bound_nano) == ("r1", 70_000, 10)
    [charge] = [e for e in ledger.entries_of("r1") if e.kind == "charged"]
    assert (charge.status, charge.amount_nano) == ("unknown", 70_000)
    assert [fault.rule for fault in verify(ledger).faults] == ["bounds"]


async def test_a_crashed_router_is_charged_its_bound_once_however_many_find_it(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger, router_id="gone") as router:
        await router.upkeep.tend()
        await router.held("r1", 300)

    async with router_accounts(ledger) as router:
        router.wall_s = NOON + SILENT_MS / 1000 - 1
        await router.upkeep.tend()
        assert router.balance() == Balance(0, 300)
        router.wall_s += 6
        other = SqliteLedger.open(ledger.path)
        now_ms = int(router.wall_s * 1000)
        _, orphans = await asyncio.gather(router.upkeep.tend(), asyncio.to_thread(close_orphans, other, now_ms))
        assert len(orphans) <= 1
        assert close_orphans(other, now_ms) == ()
        other.close()
        assert router.balance() == Balance(300, 0)
    assert [(e.kind, e.status) for e in ledger.entries_of("r1")] == [("reserved", ""), ("charged", "unknown")]


async def test_a_router_that_was_taken_for_dead_corrects_the_charge(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        paid, unsent = await router.held("r1", 100_000), await router.held("r2", 40)
        assert len(close_orphans(ledger, int(NOON * 1000) + SILENT_MS)) == 2
        assert router.balance() == Balance(100_040, 0)
        assert await router.settle(paid, CHEAP) == 70_000
        router.accounts.release(unsent)
        while len(ledger.entries_of("r2")) < 3:
            await router.settle(
                await router.held(f"next{router.writer.health.stored_rows}", 0), AttemptResult("error", None)
            )
    assert ledger.balance("all", "day", DAY_MS) == Balance(70_000, 0)
    assert [e.kind for e in ledger.entries_of("r2")] == ["reserved", "charged", "adjusted"]


def entry_of_groq(request_id: str) -> Entry:
    return Entry(kind="reserved", request_id=request_id, attempt_no=1, ts=int(NOON * 1000), backend="groq")


async def test_a_closing_row_has_every_value_in_its_place(ledger: FaultyDisk) -> None:
    """The row is made by position."""

    async with router_accounts(ledger) as router:
        asked = facts(request_id="req_1", caller=Caller(key_id="k1", tier="gold"), task="code", document=True)
        hold = await router.accounts.hold(asked, LOCAL, AttemptReason("fallback", ("queue", "slo")), 3, 0)
        assert isinstance(hold, Hold)
        await router.settle(
            hold,
            AttemptResult(
                "aborted",
                Usage(prompt_tokens=11, completion_tokens=7, cached_tokens=5, reasoning_tokens=2),
                confidence=0.5,
            ),
        )
        (row,) = ledger.entries_of("req_1")
        assert row == Entry(
            kind="charged",
            request_id="req_1",
            attempt_no=3,
            ts=int(NOON * 1000),
            backend=LOCAL.name,
            provider=LOCAL.provider,
            model=LOCAL.model,
            local=True,
            key_id="k1",
            tier="gold",
            decision="fallback",
            reasons="queue,slo",
            status="aborted",
            prompt_tokens=11,
            completion_tokens=7,
            cached_tokens=5,
            reasoning_tokens=2,
            gpu_us=work_share_us(6, 11, 7, WorkCoefficients()),
            confidence=0.5,
            task="code",
            document=True,
            router_id="me",
        )
