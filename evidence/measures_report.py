"""How long `spillway report` takes over a million ledger rows: of one day, and of a month."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from evidence.results import Measurement, not_measured
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import RentalRecord, Write
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

MILLION_ROWS = "report.million_rows"
ROWS = 1_000_000
RUNS = 5
_PER_COMMIT = 1000
_FIRST = date(2026, 10, 1)
_LIMIT_S = 120
_REASONS = ("overflow", "escalated", "fallback")
_CONFIG = """
backends:
  - {{name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:9/v1"}}
  - {{name: mine, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m,
     price: {{input_per_million: "0.15", output_per_million: "0.60"}}}}
ledger: {{url: "sqlite:///{file}"}}
"""


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    days: int
    options: tuple[str, ...]


CASES = (
    _Case("day", 1, ("--day", _FIRST.isoformat(), "--by", "key,decision")),
    _Case("month", 31, ("--month", f"{_FIRST:%Y-%m}", "--by", "day,key")),
)


def million_rows(say: Callable[[str], None], rows: int = ROWS) -> dict[str, Measurement]:
    """Measure the seconds from the command's start to its end (Python's own start included), the slower of both
    reports.

    The value is the median of five runs each, and `n` counts rows. The details have each run, and the CPU seconds it
    took.
    """
    details: dict[str, Any] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            _fill(Path(folder, "spillway.db"), rows, case.days)
            config = Path(folder, "spillway.yaml")
            config.write_text(_CONFIG.format(file=Path(folder, "spillway.db")), encoding="utf-8")
            try:
                runs = [_run(config, case, rows) for _ in range(RUNS)]
            except (subprocess.SubprocessError, ValueError) as error:
                return {MILLION_ROWS: not_measured(f"the report of a {case.name} failed: {error}")}
        wall, cpu = [run[0] for run in runs], [run[1] for run in runs]
        details[case.name] = {"median_s": statistics.median(wall), "runs_s": wall, "cpu_s": statistics.median(cpu)}
        say(f"  {case.name}: {details[case.name]}")
    value = max(details[case.name]["median_s"] for case in CASES)
    return {MILLION_ROWS: Measurement(value, rows, details)}


def _run(config: Path, case: _Case, rows: int) -> tuple[float, float]:
    """Return the wall and CPU seconds of one report.

    Raises:
        ValueError: it doesn't include all rows.
    """
    command = [str(Path(sys.executable).with_name("spillway")), "report", "-c", str(config), *case.options, "--json"]
    before, started_s = os.times(), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    wall, after = time.monotonic() - started_s, os.times()
    report = json.loads(done.stdout)
    answers = sum(group["served"]["answers"] for group in report["groups"])
    if (report["requests"], report["served"]["answers"], answers) != (rows, rows, rows):
        raise ValueError(f"it reports {report['requests']} requests and {answers} answers, not of {rows}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return round(wall, 3), round(cpu, 3)


def _fill(file: Path, rows: int, days: int) -> None:
    ledger = SqliteLedger.open(file)
    start, end = start_of(_FIRST), start_of(_FIRST + timedelta(days=days))
    ledger.rentals.add(
        RentalRecord(
            id="rent_1",
            gpu="a100-80",
            count=1,
            price_nano_per_hour=1_390_000_000,
            kind="reserved",
            started_ms=start,
            stopped_ms=end,
            source="cli",
        )
    )
    entries = _entries(rows, start, end)
    for _ in range(0, rows, _PER_COMMIT):
        ledger.commit([Write((entry,)) for entry in islice(entries, _PER_COMMIT)])
    ledger.close()


def _entries(rows: int, start: int, end: int) -> Iterator[Entry]:
    """Yield one row per request: 60% local, the rest overflow, escalation and fallback; 20 keys, three tiers."""
    rng = Random(1)
    for number in range(rows):
        local = rng.random() < 0.6
        where = ("local", "vllm", "demo", "local") if local else ("mine", "generic", "m", rng.choice(_REASONS))
        yield Entry(
            kind="charged",
            request_id=f"req_{number:024x}",
            attempt_no=1,
            ts=start + (end - start) * number // rows,
            backend=where[0],
            provider=where[1],
            model=where[2],
            decision=where[3],
            local=local,
            key_id=f"key{number % 20}",
            tier=("free", "paid", "team")[number % 3],
            status="ok",
            prompt_tokens=rng.randint(100, 3000),
            completion_tokens=rng.randint(10, 500),
            gpu_us=rng.randint(1000, 100_000) if local else 0,
            amount_nano=0 if local else rng.randint(1000, 10**6),
            tariff_ref="" if local else "config@2026-10-01",
            document=number % 4 == 0,
        )
