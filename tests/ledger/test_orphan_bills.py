"""Calls of routers that were taken for dead, reconciled one by one with the provider's own book."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from tests.ledger.helpers import DAY_MS, NOON, FaultyDisk, RouterAccounts, faulty_disk, router_accounts

from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Usage
from spillway_router.ledger.bills import BilledAttempt
from spillway_router.ledger.holds import AttemptResult
from spillway_router.ledger.orphans import SILENT_MS, close_orphans
from spillway_router.ledger.reconcile import reconcile
from spillway_router.ledger.records import Balance
from spillway_router.ledger.unsure import unsure_attempts
from spillway_router.ledger.verify import verify

BOUND_NANO = 100_000
NOW_MS = int(NOON * 1000)
Fate = Literal["settled", "estimated", "left", "released", "never"]
FATES: tuple[Fate, ...] = ("settled", "estimated", "left", "released", "never")
_RESULTS = {
    "settled": AttemptResult("ok", Usage(600, 50)),
    "estimated": AttemptResult("error", Usage(600, 20), estimated=True),
    "left": AttemptResult("aborted", Usage(600, 20), estimated=True, keeps_bound=True),
}
SETTLED_NANO = 600 * 50 + 50 * 200
"""What `settled` costs at GROQ's price."""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[FaultyDisk]:
    with faulty_disk(tmp_path) as opened:
        yield opened


async def _call(router: RouterAccounts, name: str, fate: Fate, *, is_orphan: bool) -> None:
    """Hold a call, let another router take it for an orphan or not, then end it as a router does."""
    hold = await router.held(name, BOUND_NANO)
    if is_orphan:
        assert [row.request_id for row in close_orphans(router.ledger, NOW_MS + SILENT_MS)] == [name]
    if fate == "released":
        router.accounts.release(hold)
    elif fate != "never":
        await router.settle(hold, _RESULTS[fate])


@pytest.mark.parametrize("fate", ["estimated", "left"])
async def test_budgets_hold_the_most_of_an_orphan_that_only_an_estimate_corrects(
    ledger: FaultyDisk, fate: Fate
) -> None:
    async with router_accounts(ledger, BudgetLine("all", "day", 10**9)) as router:
        await _call(router, "r1", fate, is_orphan=False)
        in_time = router.balance()
        await _call(router, "r2", fate, is_orphan=True)
    both = ledger.balance("all", "day", DAY_MS)
    assert both.spent_nano + both.reserved_nano == 2 * (in_time.spent_nano + in_time.reserved_nano)
    assert verify(ledger).holds


@pytest.mark.parametrize("seed", range(4))
async def test_every_call_can_be_reconciled_with_the_providers_book(ledger: FaultyDisk, seed: int) -> None:
    rng = Random(seed)
    book: dict[str, int] = {}
    async with router_accounts(ledger) as router:
        for number in range(40):
            fate, name = rng.choice(FATES), f"r{number}"
            await _call(router, name, fate, is_orphan=fate == "never" or rng.random() < 0.6)
            # What nobody saw end costs anything up to the bound; the provider knows it, and the router doesn't.
            book[name] = {"settled": SETTLED_NANO, "released": 0}.get(fate, rng.randint(0, BOUND_NANO))
    bills = [BilledAttempt(name, 1, nano) for name, nano in book.items()]
    assert {one.outcome for one in reconcile(ledger, bills, NOW_MS + 40 * 86_400_000)} <= {"adjusted", "already"}
    for name, nano in book.items():
        assert sum(row.amount_nano for row in ledger.entries_of(name)) == nano
    day = ledger.balance("all", "day", DAY_MS)
    assert day == Balance(sum(book.values()), 0)
    assert sum(total.cost_nano for total in ledger.totals(DAY_MS, DAY_MS + 86_400_000)) == day.spent_nano
    assert list(unsure_attempts(ledger, DAY_MS, DAY_MS + 86_400_000)) == []
    assert verify(ledger).faults == ()
    rows = ledger.head()
    assert {one.outcome for one in reconcile(ledger, bills, NOW_MS)} == {"already"}
    assert ledger.head() == rows


async def test_a_later_bill_is_applied_by_force_alone_and_once(ledger: FaultyDisk) -> None:
    async with router_accounts(ledger) as router:
        await _call(router, "r1", "estimated", is_orphan=True)
    assert [one.outcome for one in reconcile(ledger, [BilledAttempt("r1", 1, 70)], NOW_MS)] == ["adjusted"]
    later = [BilledAttempt("r1", 1, 90)]
    assert [one.outcome for one in reconcile(ledger, later, NOW_MS)] == ["adjusted otherwise"]
    assert [one.difference_nano for one in reconcile(ledger, later, NOW_MS, force=True)] == [20]
    assert [one.outcome for one in reconcile(ledger, later, NOW_MS, force=True)] == ["already"]
    assert ledger.balance("all", "day", DAY_MS) == Balance(90, 0)
    assert [row.attempt for row in ledger.entries_of("r1")] == [1] * 5
    assert verify(ledger).holds
