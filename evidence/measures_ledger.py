"""The ledger: what survives kill -9 and power cuts, and what a durable row costs."""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import apsw
from loadtests.bench_ledger import LedgerSpeed, RowKind, run, sync_ms

from evidence.durability.kill9 import kill9_trials
from evidence.durability.powercut import powercut_trials
from evidence.results import Measurement
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

KILLS = 1000
CUTS = 200
SEED = 20261120
WAITING = 32
ROWS = 32_000
REPEATS = 5
SPEED = ("ledger.durable_rows_per_s", "ledger.cpu_per_row")
_VERSIONS = {"sqlite": apsw.sqlite_lib_version(), "apsw": apsw.apsw_version()}
_MEMORY_DISK = Path("/dev/shm")

Say = Callable[[str], None]


def kill9(say: Say, trials: int = KILLS, *, fault: bool = False) -> dict[str, Measurement]:
    """Count acknowledged rows that are lost or duplicated after so many kill -9 of the writer.

    Faults that `verify` finds afterwards (chain, balances, open holds) and reservations that stay open once the orphans
    are closed count as well. `fault` acknowledges too early.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = kill9_trials(Path(folder) / "ledger.db", trials, SEED, fault=fault, say=say)
    value = outcome.lost + outcome.doubled + outcome.faults + outcome.leaked
    return {"ledger.kill9_lost_or_doubled": Measurement(value, trials, asdict(outcome), _VERSIONS)}


def powercut(say: Say, cuts: int = CUTS, *, synchronous: str = "FULL") -> dict[str, Measurement]:
    """Count acknowledged rows that are lost after so many power cuts in which unsynced writes are dropped.

    Duplicated rows and faults that `verify` finds count as well. The same harness with synchronous=NORMAL is in the
    details: it must lose rows, otherwise it could not find a loss.
    """
    with tempfile.TemporaryDirectory() as folder:
        outcome = powercut_trials(Path(folder) / "ledger.db", cuts, SEED, synchronous=synchronous)
        say(f"  synchronous={synchronous}: {outcome.acknowledged} rows acknowledged, {outcome.lost} lost")
        normal = powercut_trials(Path(folder) / "normal.db", max(5, cuts // 8), SEED, synchronous="NORMAL")
        say(f"  synchronous=NORMAL: {normal.acknowledged} rows acknowledged, {normal.lost} lost (must be more than 0)")
    details = {"synchronous": synchronous, **asdict(outcome), "with_normal": asdict(normal)}
    if not normal.lost:
        return {
            "ledger.powercut_lost": Measurement(None, 0, {"reason": "the harness finds no loss at NORMAL", **details})
        }
    value = outcome.lost + outcome.doubled + outcome.faults
    return {"ledger.powercut_lost": Measurement(value, cuts, details, _VERSIONS)}


def speed(
    say: Say, rows: int = ROWS, repeats: int = REPEATS, ledger: type[SqliteLedger] = SqliteLedger
) -> dict[str, Measurement]:
    """Measure durable rows per second and CPU per row with 32 waiting requests, on the disk of the temporary folder.

    The value is the median of some runs of the dearer kind of row (paid: holds under caps, balances). The other kind,
    and the same in memory, are in the details, since the disk limits the rows of a second.
    """
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        sync = sync_ms(Path(folder))
        say(f"  one sync of this disk: {sync:.2f} ms")
        disk = {kind: _runs(ledger, Path(folder), kind, rows, repeats) for kind in get_args(RowKind)}
        _report(say, "disk", disk)
    details = {
        "sync_ms": round(sync, 3),
        "disk": {kind: _summary(results) for kind, results in disk.items()},
    }
    if _MEMORY_DISK.is_dir():
        with tempfile.TemporaryDirectory(dir=_MEMORY_DISK) as folder:
            memory = {kind: _runs(ledger, Path(folder), kind, rows, repeats) for kind in get_args(RowKind)}
        _report(say, "memory", memory)
        details["memory"] = {kind: _summary(results) for kind, results in memory.items()}
    slowest = min(statistics.median(r.rows_per_s for r in results) for results in disk.values())
    dearest = max(statistics.median(r.cpu_us_per_row for r in results) for results in disk.values())
    count = sum(r.rows for results in disk.values() for r in results)
    return {
        SPEED[0]: Measurement(round(slowest), count, details, _VERSIONS),
        SPEED[1]: Measurement(round(dearest, 1), count, details, _VERSIONS),
    }


def _runs(ledger: type[SqliteLedger], folder: Path, kind: RowKind, rows: int, repeats: int) -> list[LedgerSpeed]:
    return [run(folder, rows, kind, WAITING, ledger) for _ in range(repeats)]


def _report(say: Say, where: str, speeds: dict[RowKind, list[LedgerSpeed]]) -> None:
    for kind, results in speeds.items():
        summary = _summary(results)
        say(f"  {where}, {kind}: {summary['rows_per_s']} rows/s, {summary['cpu_us_per_row']} us of CPU per row")


def _summary(results: Iterable[LedgerSpeed]) -> dict[str, float]:
    results = list(results)
    return {
        "rows_per_s": round(statistics.median(r.rows_per_s for r in results)),
        "cpu_us_per_row": round(statistics.median(r.cpu_us_per_row for r in results), 1),
        "wait_ms_p50": round(statistics.median(r.wait_ms_p50 for r in results), 2),
        "rows": sum(r.rows for r in results),
    }
