"""The child process of the leak trials: the money side of a router, with paid calls in every stage, until it is killed.

It reports each stage before it begins: holding, sent, streaming, settling; then `settled` with the cost, once that is
on disk. With `deaf`, a seeded fault, it sends a heartbeat far in the future, so that no other router closes its holds.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from decimal import Decimal
from itertools import count
from multiprocessing.connection import Connection

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Tariff, Usage
from spillway_router.core.routing.model import Backend, Caller, PrivacyVerdict, RequestFacts
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.orphans import SILENT_MS
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.writer import LedgerWriter

AT_ONCE = 6
BOUND = 100_000
OVERFLOW = AttemptReason("overflow", ("queue",))
CLOUD = Backend(
    name="groq",
    provider="groq",
    model="openai/gpt-oss-20b",
    local=False,
    endpoints=frozenset({"chat"}),
    capabilities=frozenset(),
    tariff=Tariff(Decimal("0.05"), Decimal("0.20")),
    context_tokens=131_072,
)


def spend(url: str, name: str, seed: int, report_to: Connection, deaf: bool = False) -> None:
    """Hold, send and settle calls on the ledger of this URL until killed; report each stage as a line."""
    asyncio.run(_spend(url, name, random.Random(seed), report_to.fileno(), deaf))


async def _spend(url: str, name: str, rng: random.Random, report_to: int, deaf: bool) -> None:
    ledger = open_ledger(url)
    writer = LedgerWriter(ledger)
    accounts = Accounts(
        writer=writer,
        lines=(),
        coefficients=WorkCoefficients(),
        wall=time.time,
        on_alert=lambda _alert: None,
        router_id=name,
    )
    accounts.load(ledger, [BudgetLine("all", "month", 10**15)])
    upkeep = Upkeep(ledger, accounts, name, time.time)
    upkeep.start()
    if deaf:
        ledger.alive(name, int(time.time() * 1000) + 1000 * SILENT_MS)
    numbers = count()

    def report(stage: str, request: str, nano: int = 0) -> None:
        os.write(report_to, f"{stage} {request} {nano}\n".encode())

    async def call(request: str) -> None:
        report("holding", request)
        hold = await accounts.hold(_facts(request), CLOUD, OVERFLOW, 1, BOUND)
        assert isinstance(hold, Hold), hold
        report("sent", request)
        await asyncio.sleep(rng.expovariate(2000))
        report("streaming", request)
        await asyncio.sleep(rng.expovariate(1000))
        report("settling", request)
        how = rng.random()
        if how < 0.2:
            result = AttemptResult("error", None, billed=False)
        elif how < 0.3:
            result = AttemptResult("aborted", None, billed=True)
        else:
            result = AttemptResult("ok", Usage(rng.randrange(1000), rng.randrange(100)))
        charge_nano, durable = accounts.settle(hold, CLOUD, result)
        if durable is not None and await durable is None:
            report("settled", request, charge_nano)

    async def calls() -> None:
        while True:
            await call(f"{name}-{next(numbers)}")

    await asyncio.gather(*(calls() for _ in range(AT_ONCE)))


def _facts(request_id: str) -> RequestFacts:
    """A small public chat request."""
    return RequestFacts(
        request_id=request_id,
        endpoint="chat",
        model="auto",
        stream=False,
        prompt_bytes=300,
        max_tokens=100,
        choices=1,
        needs=frozenset(),
        privacy=PrivacyVerdict(True),
        caller=Caller(),
    )
