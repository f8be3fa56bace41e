"""Every measured charge can be computed again from the ledger alone, and `verify` does so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from tests.core.scenes import GROQ, facts
from tests.ledger.helpers import (
    DEAR_BACKEND,
    OVERFLOW,
    SEARCHES,
    FaultyDisk,
    RouterAccounts,
    entry,
    router_accounts,
    tamper,
)

from spillway_router.core.money.tariff import Rates, Tariff, TariffStep, Usage
from spillway_router.core.routing.model import Backend
from spillway_router.ledger.entries import Status
from spillway_router.ledger.holds import AttemptResult, Hold
from spillway_router.ledger.recompute import ChargeCounts
from spillway_router.ledger.tables.tariffs import texts_of
from spillway_router.ledger.verify import verify
from spillway_router.testing import MemoryLedger

BOUND = 10**12
STEPS = (
    TariffStep(Rates(Decimal("3"), Decimal("9"), cached_input=Decimal("0.3")), above_tokens=1000),
    TariffStep(Rates(Decimal("0.5"), Decimal("1")), service="flex"),
)
BACKENDS = (
    DEAR_BACKEND,
    GROQ,
    replace(GROQ, name="steps", tariff=Tariff(Decimal("1.1"), Decimal("2.2"), steps=STEPS)),
    replace(GROQ, name="seconds", tariff=Tariff(Decimal(0), Decimal("0.1"), per_second=Decimal("0.0007"))),
    replace(GROQ, name="request", tariff=Tariff(Decimal(0), Decimal(0), per_request=Decimal("0.000123"))),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spillway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[FaultyDisk]:
    opened = FaultyDisk.open(path)
    assert isinstance(opened, FaultyDisk)
    opened.prepare()
    yield opened
    opened.close()


def usage_of(rng: Random) -> Usage:
    prompt, completion = rng.randint(0, 3000), rng.randint(0, 900)
    cached = rng.randint(0, prompt)
    written = rng.choice((0, rng.randint(0, prompt - cached)))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=rng.choice((0, rng.randint(0, completion))),
        cache_write_tokens=written,
        cache_write_long_tokens=rng.randint(0, written),
        service=rng.choice(("", "", "flex")),
        calls=rng.choice(((), (("web_search", rng.randint(1, 5)),))),
    )


async def spend(router: RouterAccounts, backend: Backend, number: int, result: AttemptResult) -> None:
    request = facts(request_id=f"r{number}", items=SEARCHES)
    hold = await router.accounts.hold(request, backend, OVERFLOW, 1, BOUND)
    assert isinstance(hold, Hold), hold
    await router.settle(hold, result)


async def test_every_measured_charge_is_computed_again(ledger: FaultyDisk) -> None:
    rng = Random(7)
    statuses: tuple[Status, ...] = ("ok", "aborted", "discarded", "error")
    async with router_accounts(ledger) as router:
        results = [AttemptResult(rng.choice(statuses), usage_of(rng), seconds=rng.random() * 9) for _ in range(300)]
        for at in range(0, 300, 50):
            some = enumerate(results[at : at + 50], at)
            await asyncio.gather(*(spend(router, rng.choice(BACKENDS), number, one) for number, one in some))
        await spend(router, GROQ, 900, AttemptResult("ok", None))
        await spend(router, GROQ, 901, AttemptResult("ok", Usage(9, 9, told_nano=5)))
        await spend(router, GROQ, 902, AttemptResult("aborted", Usage(9, 9), estimated=True))
        await spend(router, GROQ, 903, AttemptResult("error", None, billed=False))
    ledger.append((entry("charged", "old", amount_nano=5, tariff_ref="config@1970-01-01"),))
    ledger.append((entry("adjusted", "r900", amount_nano=-5, tariff_ref=GROQ.tariff.ref if GROQ.tariff else ""),))
    verification = verify(ledger)
    assert verification.faults == ()
    unsure = verification.charges.unsure
    assert verification.charges == ChargeCounts(computed=302 - unsure, named=1, unsure=unsure, adjusted=1, not_kept=1)
    unpriced = sum(1 for row in ledger.entries_between(0, 2**62) if row.status == "unknown" and row.kind == "charged")
    assert unsure == unpriced + 1  # modes and tools without a price, the unknown end, and the estimate


async def test_a_changed_price_is_another_price(ledger: FaultyDisk) -> None:
    prices = [Tariff(Decimal("6"), Decimal("18")), Tariff(Decimal("12"), Decimal("36"))]  # neither says from when
    async with router_accounts(ledger) as router:
        for number, tariff in enumerate([*prices, prices[0]]):
            await spend(router, replace(GROQ, tariff=tariff), number, AttemptResult("ok", Usage(50_000, 20_000)))
    rows = [row for row in ledger.entries_between(0, 2**62) if row.kind == "charged"]
    assert [row.amount_nano for row in rows] == [660_000_000, 1_320_000_000, 660_000_000]
    assert [row.tariff_ref for row in rows] == [prices[0].ref, prices[1].ref, prices[0].ref]
    assert prices[0].ref != prices[1].ref
    assert ledger.tariffs.texts() == texts_of(prices)
    assert verify(ledger).charges == ChargeCounts(computed=3)


def test_a_price_is_kept_once_and_never_changed() -> None:
    memory = MemoryLedger()
    memory.tariffs.keep({"a#1": "one"}, 1)
    memory.tariffs.keep({"a#1": "two", "b#2": "three"}, 2)
    assert memory.tariffs.texts() == {"a#1": "one", "b#2": "three"}


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE entries SET completion_tokens = 101 WHERE kind = 'charged'", "but its usage costs 70200"),
        ("UPDATE entries SET amount_nano = 69000 WHERE kind = 'charged'", "is 69000 nano-USD"),
        ("UPDATE entries SET service = 'flex', calls = '{' WHERE kind = 'charged'", "can't be computed again"),
        ("DELETE FROM tariffs", "doesn't keep unchanged"),
        ('UPDATE tariffs SET price = \'{"input":"0.05","output":"0.21"}\'', "doesn't keep unchanged"),
    ],
)
async def test_a_charge_that_its_row_does_not_explain_is_a_fault(
    ledger: FaultyDisk, path: Path, sql: str, says: str
) -> None:
    async with router_accounts(ledger) as router:
        await spend(router, GROQ, 1, AttemptResult("ok", Usage(1000, 100)))
    assert verify(ledger).charges == ChargeCounts(computed=1)
    tamper(path, sql)
    faults = [fault for fault in verify(ledger).faults if fault.rule == "charges"]
    assert [fault.seq for fault in faults] == [2]
    assert says in faults[0].detail
