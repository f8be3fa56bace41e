"""Durable rows per second and CPU per row of the ledger writer, at 1, 8, 32 and 128 requests that wait for
their row.

    python loadtests/bench_ledger.py [--rows 40000] [--dir FOLDER] [--json]

CPU is of the whole process: event loop, futures, writer thread and SQLite, from making the entry to the
resolved future. Rows per second depend on how long the disk takes to sync, which is measured beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.sqlite import SqliteLedger
from spillway_router.ledger.writer import LedgerWriter

WAITING = (1, 8, 32, 128)


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement: requests that wait at once, rows stored, rows/s, CPU us per row, median of one wait
    in ms."""

    waiting: int
    rows: int
    rows_per_s: float
    cpu_us_per_row: float
    wait_ms_p50: float


def entry(number: int) -> Entry:
    """A charged row with everything a cloud answer fills in."""
    return Entry(
        kind="charged",
        request_id=f"req-{os.getpid():08x}{number:024x}",
        attempt_no=1,
        ts=1_790_000_000_000 + number,
        backend="groq",
        provider="groq",
        model="openai/gpt-oss-20b",
        key_id="0123456789ab",
        tier="free",
        decision="overflow",
        reasons="queue,slo",
        status="ok",
        prompt_tokens=1155,
        completion_tokens=211,
        amount_nano=149_925,
        tariff_ref="catalogue@2026-11-20",
        task="chat",
    )


async def measure(path: Path, waiting: int, rows: int) -> Result:
    """`waiting` tasks submit one row after the other, each waiting until it is durable."""
    ledger = SqliteLedger.open(path)
    writer = LedgerWriter(ledger)
    waits: list[float] = []

    async def request(first: int, count: int) -> None:
        for number in range(first, first + count):
            began = time.perf_counter()
            await writer.submit((entry(number),))
            waits.append(time.perf_counter() - began)

    each = rows // waiting
    await asyncio.gather(*(request(10**9 + i, 20) for i in range(0, waiting * 20, 20)))  # warm statements
    waits.clear()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(request(i * each, each) for i in range(waiting)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert await writer.close(10)
    stored = each * waiting
    ledger.close()
    waits.sort()
    return Result(waiting, stored, stored / wall, 1e6 * cpu / stored, 1e3 * waits[len(waits) // 2])


def sync_ms(folder: Path, times: int = 50) -> float:
    """Median milliseconds of one fsync of 8 KiB in this folder."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return 1e3 * sorted(took)[times // 2]


def run(folder: Path, rows: int, waiting: tuple[int, ...] = WAITING) -> list[Result]:
    """One fresh database per measurement. Few requests at once are slow on a real disk, so they write fewer
    rows."""
    results = []
    for count in waiting:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            share = min(rows, 1_000 * count)
            results.append(uvloop.run(measure(Path(place) / "ledger.db", count, share)))
    return results


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="folder whose disk is measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sync = sync_ms(options.dir)
    results = run(options.dir, options.rows)
    if options.json:
        print(json.dumps({"sync_ms": sync, "results": [asdict(result) for result in results]}))
        return
    print(f"one sync of the disk: {sync:.2f} ms")
    print(f"{'waiting':>8} {'rows':>8} {'rows/s':>10} {'CPU us/row':>11} {'wait p50 ms':>12}")
    for r in results:
        print(f"{r.waiting:>8} {r.rows:>8} {r.rows_per_s:>10.0f} {r.cpu_us_per_row:>11.1f} {r.wait_ms_p50:>12.2f}")


if __name__ == "__main__":
    main()
