"""Entries, faulty disks and running accounts that the tests of the ledger share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event
from typing import Any

import apsw
from tests.core.scenes import GROQ, facts

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.bounds import ItemRule, RequestItem
from spillway_router.core.money.budget import BudgetAlert, BudgetLine
from spillway_router.core.money.tariff import Rates, Tariff, TariffStep, Usage
from spillway_router.core.routing.model import Caller
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.entries import Entry, Kind
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.holds import AttemptReason, AttemptResult, ExcessCharge, Hold, HoldRefused
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.records import Balance, Write, WriteResult
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.writer import LedgerWriter

T0 = 1_790_000_000_000
"""2026-09-21 14:13:20 UTC, in epoch milliseconds."""
HOUR = 3_600_000
DAY = 24 * HOUR
H0, D0, M0 = T0 // HOUR * HOUR, T0 // DAY * DAY, 1_788_220_800_000
"""First milliseconds of the hour, day and month of T0."""
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC).timestamp()
"""Epoch seconds; `RouterAccounts` starts at this time."""
DAY_MS = int(NOON - 12 * 3600) * 1000
"""First millisecond of NOON's day."""
WAIT_S = 20
OVERFLOW = AttemptReason("overflow", ("queue",))
DEAR_TARIFF = Tariff(
    Decimal("1"),
    Decimal("10"),
    cached_input_per_million=Decimal("0.1"),
    cache_write_per_million=Decimal("1.25"),
    cache_write_long_per_million=Decimal("2"),
    steps=(TariffStep(Rates(Decimal("0.5"), Decimal("5")), service="flex"),),
    fees=(("web_search_20250305", Decimal("0.01")),),
)
"""A price with everything that a price can have."""
DEAR_BACKEND = replace(
    GROQ,
    tariff=DEAR_TARIFF,
    item_rules={"chat": {"tool:web_search_20250305": ItemRule(limit="max_uses", fee="web_search_20250305")}},
)
SEARCHES = (RequestItem("tool:web_search_20250305", "tools[0]"),)
"""What a request holds that lets the provider search."""
CHEAP = AttemptResult("ok", Usage(1000, 100))
"""70,000 nano-dollars at GROQ's price."""


def entry(kind: Kind, request: str, attempt: int = 1, ts: int = T0, **rest: Any) -> Entry:
    """Return an entry of a cloud attempt, with defaults for what a test doesn't look at."""
    given = {"backend": "groq", "provider": "groq", "model": "m", "key_id": "k1", "tier": "free", **rest}
    return Entry(kind=kind, request_id=request, attempt_no=attempt, ts=ts, **given)


AFTER_ALL_MS = 4_102_444_800_000
"""1 January 2100 in epoch ms: after all rows."""


def requests_in(ledger: Ledger, start_ms: int, end_ms: int) -> int:
    """Return how many different requests have charged rows in a range of whole quarters of an hour, roughly cut."""
    return sum(total.requests for total in ledger.totals(start_ms, end_ms))


def tamper(path: Path, *sql: str) -> None:
    """Change a SQLite ledger behind its back, without the triggers that forbid it."""
    connection = apsw.Connection(str(path))
    for table in ("entries", "acts", "tariffs"):
        for change in ("changed", "deleted"):
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_are_never_{change}")
    for statement in sql:
        connection.execute(statement)
    connection.close()


class FaultyDisk(SqliteLedger):
    """A real ledger whose commits a test can block or make fail, before or after they are stored."""

    def prepare(self) -> None:
        """Reset the faults; call this right after opening."""
        self.allowed = Event()
        self.allowed.set()
        self.reached = Event()
        self.broken = False
        self.loses_next_acknowledgement = False

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        self.reached.set()
        assert self.allowed.wait(WAIT_S)
        if self.broken:
            raise LedgerUnavailableError("disk full")
        results = super().commit(writes)
        if self.loses_next_acknowledgement:
            self.loses_next_acknowledgement = False
            raise LedgerUnavailableError("the connection broke during COMMIT")
        return results


@contextmanager
def faulty_disk(folder: Path) -> Iterator[FaultyDisk]:
    """Open a ledger without faults in a folder; at the end no commit is blocked any more."""
    opened = FaultyDisk.open(folder / "spillway.db")
    assert isinstance(opened, FaultyDisk)
    opened.prepare()
    yield opened
    opened.allowed.set()
    opened.close()


async def until(condition: Callable[[], bool]) -> None:
    """Give the event loop turns until a condition holds; the caller's time limit ends the wait."""
    while not condition():
        await asyncio.sleep(0.001)


@dataclass
class RouterAccounts:
    """One router's accounts over a ledger, at the time `wall_s` (epoch seconds), which the test sets."""

    ledger: FaultyDisk
    accounts: Accounts = field(init=False)
    writer: LedgerWriter = field(init=False)
    upkeep: Upkeep = field(init=False)
    alerts: list[BudgetAlert] = field(default_factory=list)
    excesses: list[ExcessCharge] = field(default_factory=list)
    wall_s: float = NOON

    async def hold(
        self, request_id: str, bound_nano: int, attempt: int = 1, user_id: str = "", **caller: Any
    ) -> Hold | HoldRefused:
        request = facts(request_id=request_id, caller=Caller(**caller), user_id=user_id)
        return await self.accounts.hold(request, GROQ, OVERFLOW, attempt, bound_nano)

    async def held(self, request_id: str, bound_nano: int) -> Hold:
        hold = await self.hold(request_id, bound_nano)
        assert isinstance(hold, Hold), hold
        return hold

    async def settle(self, hold: Hold, result: AttemptResult) -> int:
        charge_nano, durable = self.accounts.settle(hold, hold.backend, result)
        await self.accounts.durable(durable)
        return charge_nano

    def balance(self) -> Balance:
        return self.ledger.balance("all", "day", DAY_MS)


@asynccontextmanager
async def router_accounts(
    ledger: FaultyDisk, *lines: BudgetLine, router_id: str = "me"
) -> AsyncIterator[RouterAccounts]:
    """Run accounts with these budgets; at the end the writer closes, so that every row is on disk."""
    router = RouterAccounts(ledger)
    router.writer = LedgerWriter(ledger, probe_every_s=0.01)
    router.accounts = Accounts(
        writer=router.writer,
        lines=(),
        coefficients=WorkCoefficients(),
        wall=lambda: router.wall_s,
        on_alert=router.alerts.append,
        router_id=router_id,
        on_excess=router.excesses.append,
    )
    router.accounts.load(ledger, lines)
    router.upkeep = Upkeep(ledger, router.accounts, router_id, lambda: router.wall_s)
    async with asyncio.timeout(WAIT_S):
        yield router
    assert await router.writer.close(WAIT_S)
