"""Child of the kill trials: several requests at once write rows through the writer and acknowledge each once it is
durable.

Half of the requests are local (one charge), half are paid (a hold under a cap, then its charge). Meanwhile the rows are
added to the running sums. With `early` a row is
acknowledged before it is durable: a seeded fault that the trial must find.
"""

from __future__ import annotations

import asyncio
import os
from itertools import count
from multiprocessing.connection import Connection

from spillway_router.aio.tasks import end
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import Cap
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.writer import LedgerWriter

REQUESTS_AT_ONCE = 8
T0 = 1_790_000_000_000
CAP = Cap("all", "month", 1_788_220_800_000, 10**15)


def write(url: str, name: str, requests: int, acknowledgements: Connection, early: bool = False) -> None:
    """Write the rows of so many requests (0: until killed); send `request_id kind` of each durable row."""
    asyncio.run(_write(url, name, requests, acknowledgements.fileno(), early))


async def _write(url: str, name: str, requests: int, acknowledgements: int, early: bool) -> None:
    ledger = open_ledger(url)
    writer = LedgerWriter(ledger)
    numbers = iter(range(requests)) if requests else count()

    async def store(row: Entry, *caps: Cap) -> None:
        durable = writer.submit((row,), caps)
        if not early:
            assert await durable is None
        # Shorter than PIPE_BUF, so either the whole line is in the pipe or nothing.
        os.write(acknowledgements, f"{row.request_id} {row.kind}\n".encode())
        await durable

    async def request() -> None:
        for number in numbers:
            request_id, ts = f"{name}-{number}", T0 + number
            if number % 2:
                await store(
                    Entry(
                        kind="reserved", request_id=request_id, attempt_no=1, ts=ts, reserved_nano=100, router_id=name
                    ),
                    CAP,
                )
            local = not number % 2
            amount = 0 if local else 70
            await store(
                Entry(kind="charged", request_id=request_id, attempt_no=1, ts=ts, local=local, amount_nano=amount)
            )

    async def sum_up() -> None:
        while True:
            if not await asyncio.to_thread(ledger.sum_up, 5):
                await asyncio.sleep(0)

    summing = asyncio.create_task(sum_up())
    await asyncio.gather(*(request() for _ in range(REQUESTS_AT_ONCE)))
    await end(summing, limit_s=30)
    assert await writer.close(30)
    ledger.close()
