"""Durable rows per second and CPU per row of the ledger, with 1, 8, 32 and 128 requests that wait for their rows.

    python loadtests/bench_ledger.py [--rows 40000] [--dir FOLDER] [--json]

There are two kinds of requests. Both go through the router's own accounts and writer, and each waits until its row is
on disk:

    local   one row: the charge of a local answer, 0 USD and its GPU work share
    paid    two rows: a hold under two caps, judged by the database, then the charge that replaces it; both change the
            balances of four scopes in three periods

Every row is in the hash chain. CPU is that of the whole process: event loop, futures, writer thread, SQLite and the
kernel's work for it, from the creation of the entry to the resumed request. Rows per second depend on how long the disk
takes to sync, which is measured as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Literal, get_args

import uvloop

from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.budget import BudgetLine
from spillway_router.core.money.tariff import Tariff, Usage
from spillway_router.core.routing.model import Backend, Caller, PrivacyVerdict, RequestFacts
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.holds import AttemptReason, AttemptResult, Hold
from spillway_router.ledger.ids import request_ids
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.writer import LedgerWriter

WAITING = (1, 8, 32, 128)
RowKind = Literal["local", "paid"]
ROWS_OF: dict[RowKind, int] = {"local": 1, "paid": 2}

CALLER = Caller(key_id="0123456789ab", tier="free")
FACTS = RequestFacts(
    request_id="",
    endpoint="chat",
    model="auto",
    stream=True,
    prompt_bytes=4620,
    max_tokens=400,
    choices=1,
    needs=frozenset(),
    privacy=PrivacyVerdict(True),
    caller=CALLER,
)
LOCAL = Backend(
    name="local", provider="vllm", model="demo", local=True, endpoints=frozenset({"chat"}), capabilities=frozenset()
)
PRICE = Tariff(Decimal("0.075"), Decimal("0.30"), source="catalogue", valid_from="2026-11-20")
CLOUD = Backend(
    name="groq",
    provider="groq",
    model="openai/gpt-oss-20b",
    local=False,
    endpoints=frozenset({"chat"}),
    capabilities=frozenset(),
    tariff=PRICE,
)
CAPS = (BudgetLine("all", "day", 10**15), BudgetLine("tier:free", "month", 10**15))
ENDED = AttemptResult("ok", Usage(1155, 211), confidence=0.9375)
BOUND_NANO = 500_000


@dataclass(frozen=True, slots=True)
class LedgerSpeed:
    """One measurement: waiting requests at a time, rows stored, rows/s, CPU us per row, median ms
    that a request waits.
    """

    kind: RowKind
    waiting: int
    rows: int
    rows_per_s: float
    cpu_us_per_row: float
    wait_ms_p50: float


async def measure(ledger: SqliteLedger, kind: RowKind, waiting: int, rows: int) -> LedgerSpeed:
    """Let `waiting` tasks make one request after the other; each waits until its rows are durable."""
    writer = LedgerWriter(ledger)
    accounts = Accounts(
        writer=writer,
        lines=(),
        coefficients=WorkCoefficients(),
        wall=time.time,
        on_alert=lambda _alert: None,
        router_id="router-0123456789abcdef",
    )
    accounts.load(ledger, CAPS)
    new_id = request_ids(time.time).__next__
    backend, why = (
        (LOCAL, AttemptReason("local", ())) if kind == "local" else (CLOUD, AttemptReason("overflow", ("queue", "slo")))
    )
    waits: list[float] = []

    def facts(count: int) -> Iterator[RequestFacts]:
        return iter([replace(FACTS, request_id=new_id()) for _ in range(count)])

    async def request(asked: Iterator[RequestFacts]) -> None:
        for one in asked:
            began = time.perf_counter()
            hold = await accounts.hold(one, backend, why, 1, BOUND_NANO)
            assert isinstance(hold, Hold)
            _, durable = accounts.settle(hold, backend, ENDED)
            assert durable is not None
            await durable
            waits.append(time.perf_counter() - began)

    warm = facts(10 * waiting)
    await asyncio.gather(*(request(warm) for _ in range(waiting)))
    waits.clear()
    count = max(waiting, rows // ROWS_OF[kind])
    asked = facts(count)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(request(asked) for _ in range(waiting)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert await writer.close(10)
    stored = count * ROWS_OF[kind]
    waits.sort()
    return LedgerSpeed(
        kind=kind,
        waiting=waiting,
        rows=stored,
        rows_per_s=stored / wall,
        cpu_us_per_row=1e6 * cpu / stored,
        wait_ms_p50=1e3 * waits[len(waits) // 2],
    )


def sync_ms(folder: Path, times: int = 50) -> float:
    """Return the median milliseconds of one fsync of 8 KiB in this folder."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1e3 * sorted(took)[times // 2]


def run(folder: Path, rows: int, kind: RowKind, waiting: int, ledger: type[SqliteLedger] = SqliteLedger) -> LedgerSpeed:
    """Take one measurement on a fresh database."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        opened = ledger.open(Path(place) / "ledger.db")
        try:
            return uvloop.run(measure(opened, kind, waiting, rows))
        finally:
            opened.close()


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="folder whose disk is measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sync = sync_ms(options.dir)
    # With few requests at a time a real disk is slow, so these runs write fewer rows.
    results = [
        run(options.dir, min(options.rows, 1_000 * waiting), kind, waiting)
        for kind in get_args(RowKind)
        for waiting in WAITING
    ]
    if options.json:
        print(json.dumps({"sync_ms": sync, "results": [asdict(result) for result in results]}))
        return
    print(f"one sync of the disk: {sync:.2f} ms")
    print(f"{'kind':>6} {'waiting':>8} {'rows':>8} {'rows/s':>10} {'CPU us/row':>11} {'wait p50 ms':>12}")
    for r in results:
        print(
            f"{r.kind:>6} {r.waiting:>8} {r.rows:>8} {r.rows_per_s:>10.0f} {r.cpu_us_per_row:>11.1f} "
            f"{r.wait_ms_p50:>12.2f}"
        )


if __name__ == "__main__":
    main()
