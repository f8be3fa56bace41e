"""Child of the kill tests: writes rows through the writer and prints each request id once its row is durable.

    python kill9_child.py LEDGER NAME COUNT [early]        (LEDGER: a file or URL; COUNT 0: until killed)

With `early` it acknowledges before the row is durable: a seeded fault that the kill test has to find.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from pathlib import Path

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.sqlite import SqliteLedger
from spillway_router.ledger.url import open_ledger
from spillway_router.ledger.writer import LedgerWriter

REQUESTS_AT_ONCE = 8


async def main(place: str, name: str, rows: int, early: bool) -> None:
    """Several requests at once take the next number, submit its row, wait, and acknowledge."""
    ledger = open_ledger(place) if "://" in place else SqliteLedger.open(Path(place))
    writer = LedgerWriter(ledger)
    numbers = iter(range(rows)) if rows else count()

    async def request() -> None:
        for number in numbers:
            request_id = f"{name}-{number}"
            row = Entry(kind="charged", request_id=request_id, attempt_no=1, ts=1_790_000_000_000 + number)
            durable = writer.submit((row,))
            if not early:
                await durable
            # Unbuffered and below PIPE_BUF: the whole line is in the pipe, or nothing of it.
            os.write(1, f"{request_id}\n".encode())
            await durable

    await asyncio.gather(*(request() for _ in range(REQUESTS_AT_ONCE)))
    assert await writer.close(30)
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "early" in sys.argv[4:]))
