"""Child of the leak trials: the money side of a router, paid calls at once in every stage, until it is killed.

Each stage is told before it begins: holding, sent, streaming, settling. Then `settled` with its cost, once on disk.
With `deaf` nobody but this process closes its holds: it says that it lives, far into the future. A seeded fault.
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
WHY = AttemptReason("overflow", ("queue",))
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


def spend(url: str, name: str, seed: int, told: Connection, deaf: bool = False) -> None:
    """Hold, send and settle calls on the ledger of this URL until killed; tell each stage as a line."""
    asyncio.run(_spend(url, name, random.Random(seed), told.fileno(), deaf))


async def _spend(url: str, name: str, rng: random.Random, told: int, deaf: bool) -> None:
    ledger = open_ledger(url)
    writer = LedgerWriter(ledger)
    accounts = Accounts(writer, (), WorkCoefficients(), time.time, lambda _alert: None, name)
    accounts.load(ledger, [BudgetLine("all", "month", 10**15)])
    upkeep = Upkeep(ledger, accounts, name, time.time)
    upkeep.start()
    if deaf:
        ledger.alive(name, int(time.time() * 1000) + 1000 * SILENT_MS)
    numbers = count()

    def tell(stage: str, request: str, nano: int = 0) -> None:
        os.write(told, f"{stage} {request} {nano}\n".encode())

    async def call(request: str) -> None:
        tell("holding", request)
        hold = await accounts.hold(_facts(request), CLOUD, WHY, 1, BOUND)
        assert isinstance(hold, Hold), hold
        tell("sent", request)
        await asyncio.sleep(rng.expovariate(2000))
        tell("streaming", request)
        await asyncio.sleep(rng.expovariate(1000))
        tell("settling", request)
        how = rng.random()
        if how < 0.2:
            ended = AttemptResult("error", None, billed=False)
        elif how < 0.3:
            ended = AttemptResult("aborted", None, billed=True)
        else:
            ended = AttemptResult("ok", Usage(rng.randrange(1000), rng.randrange(100)))
        amount, durable = accounts.settle(hold, CLOUD, ended)
        if durable is not None and await durable is None:
            tell("settled", request, amount)

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
