"""A router whose ledger accepts every hold regardless of the caps: a seeded fault that the overshoot trial must
find."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from spillway_router.config import load
from spillway_router.ledger.records import Write, WriteResult
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.runtime.router import Runtime
from spillway_router.testing import MemoryLedger
from spillway_router.testing.harness import serving


class Generous(SqliteLedger):
    """A ledger that ignores caps, and whose balances always read zero."""

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        return super().commit([Write(write.entries) for write in writes])

    balance = MemoryLedger().balance


async def _main(path: str) -> None:
    import os
    from pathlib import Path

    loaded = load.read(path, dict(os.environ))
    ledger = Generous.open(Path(loaded.settings.ledger.url.removeprefix("sqlite:///")))
    runtime = Runtime(loaded, ledger, "faulty")
    runtime.start()
    try:
        async with serving(runtime.app, runtime.front) as url:
            print(f"listens on {url}", flush=True)
            await asyncio.Event().wait()
    finally:
        await runtime.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
