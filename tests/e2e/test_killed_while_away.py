"""A router that is killed while its ledger hangs: the next one has every row, once, and every paid call at its cost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import httpx

from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing.harness import MESSAGES
from spillway_router.testing.processes import await_ready, running, write
from spillway_router.testing.upstream import Answer, FaultUpstream

WAIT_S = 30
WHOLE = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
PAID_NANO = 3 * 1_000 + 2_000
LOCALS = 30


def config(folder: Path, engine: FaultUpstream, cloud: FaultUpstream) -> Path:
    price = {"input_per_million": "1", "output_per_million": "2"}
    backends = [
        {"name": "local", "provider": "ollama", "local": True, "model": "m", "base_url": engine.url},
        {"name": "cloud", "provider": "generic", "model": "m", "base_url": cloud.url, "api_key": "k", "price": price},
    ]
    aliases = {"loc": {"chain": ["local"]}, "paid": {"chain": ["cloud"]}}
    return write(folder, {"backends": backends, "aliases": aliases})


async def test_a_kill_while_the_ledger_hangs_loses_no_row_that_was_answered(tmp_path: Path) -> None:
    gate, file = asyncio.Event(), tmp_path / "spillway.db"
    async with FaultUpstream(Answer.json(WHOLE)) as engine, FaultUpstream(Answer.json(WHOLE).after(gate)) as cloud:
        path = config(tmp_path, engine, cloud)
        with running("route", path) as process:
            await asyncio.to_thread(await_ready, process.url)
            async with httpx.AsyncClient(base_url=process.url, trust_env=False, timeout=WAIT_S) as client:

                def ask(model: str) -> asyncio.Task[httpx.Response]:
                    body = {"model": model, "messages": MESSAGES, "max_tokens": 50}
                    return asyncio.create_task(client.post("/v1/chat/completions", json=body))

                under_way = ask("paid")
                await asyncio.wait_for(cloud.arrivals.get(), WAIT_S)  # its hold is stored
                with contextlib.closing(sqlite3.connect(file, timeout=WAIT_S, isolation_level=None)) as other:
                    other.execute("BEGIN IMMEDIATE")
                    answers = [(await ask("loc")).status_code for _ in range(LOCALS)]
                    gate.set()
                    assert (await under_way).status_code == 200
                    refused = await ask("paid")
                    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "ledger_unavailable")
                    process.process.send_signal(signal.SIGKILL)
                    await asyncio.to_thread(process.ended)
                    other.execute("ROLLBACK")
        with running("route", path) as process:
            await asyncio.to_thread(await_ready, process.url)
            assert await asyncio.to_thread(process.end) == 0
    assert answers == [200] * LOCALS
    assert "rows that an earlier router could not store are in the ledger now" in process.text
    ledger = SqliteLedger.open_to_read(file)
    rows = Counter((row.kind, row.backend, row.amount_nano) for row in ledger.entries_between(0, 2**62))
    assert rows["charged", "local", 0] == LOCALS
    assert rows["charged", "cloud", PAID_NANO] == 1
    assert verify(ledger).holds
    ledger.close()
    assert not list(tmp_path.glob("*.waiting-*"))
