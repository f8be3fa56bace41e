"""How long `spillway report` takes over a million ledger rows, and how long it and the other readers of the ledger take
over five million.

A router keeps running sums beside the rows (ledger/store/sums.py), a few seconds behind the last row. So each ledger is
summed up after it was filled, in the chunks in which a router does it; the details say what that takes.
"""

from __future__ import annotations

import contextlib
import json
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
from typing import Any, NamedTuple

import httpx
from loadtests.bench.processes import BenchError, Command, free_port, running

from evidence.results import Measurement, not_measured
from evidence.served import SPILLWAY
from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.maintenance import ROWS_TO_SUM
from spillway_router.ledger.records import RentalRecord, Write
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

MILLION_ROWS = "report.million_rows"
FIVE_MILLION = ("money.report_5m_rows", "money.report_5m_rss")
READERS = ("money.verify_rate", "money.export_rate", "money.start_5m_rows")
ROWS = 1_000_000
RUNS = 5
_PER_COMMIT = 1000
FIRST_DAY = date(2026, 10, 1)
_LIMIT_S = 300
_REASONS = ("overflow", "escalated", "fallback")
_CONFIG = """
backends:
  - {{name: local, provider: vllm, model: demo, base_url: "http://127.0.0.1:9/v1"}}
  - {{name: mine, provider: generic, base_url: "http://127.0.0.1:9/v1", api_key: k, model: m,
     price: {{input_per_million: "0.15", output_per_million: "0.60"}}}}
ledger: {{url: "sqlite:///{file}"}}
"""

# A process of its own runs the command, because a child's largest memory begins with that of the process that made it.
_WEIGHED = """
import os, sys, time
began = time.monotonic()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(pid, 0)
print(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One report: its range in days, its options, and the number of API keys in the ledger."""

    name: str
    days: int
    options: tuple[str, ...]
    keys: int = 20


class Cost(NamedTuple):
    """What one report took: seconds of wall clock and of CPU, and the largest resident memory in MiB."""

    wall_s: float
    cpu_s: float
    rss_mib: float


MONTH = ("--month", f"{FIRST_DAY:%Y-%m}")
CASES = (
    Case("day", 1, ("--day", FIRST_DAY.isoformat(), "--by", "key,decision")),
    Case("month", 31, (*MONTH, "--by", "day,key")),
)
MANY_KEYS = 10_000
LONG_CASES = (
    Case("month", 31, (*MONTH, "--by", "decision"), MANY_KEYS),
    Case("month by key", 31, (*MONTH, "--by", "key"), MANY_KEYS),
)


def million_rows(say: Callable[[str], None], rows: int = ROWS, runs: int = RUNS) -> dict[str, Measurement]:
    """Measure the seconds from the command's start to its end (Python's own start included), the slower of both
    reports.

    The value is the median of `runs` runs each, and `n` counts rows. The details have each run, and the CPU seconds it
    took.
    """
    details: dict[str, Any] = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            details["summed_us_per_row"] = fill_ledger(Path(folder, "spillway.db"), rows, case)
            try:
                costs = _runs(Path(folder), case, rows, runs)
            except (subprocess.SubprocessError, ValueError) as error:
                return {MILLION_ROWS: not_measured(f"the report of a {case.name} failed: {error}")}
        details[case.name] = _summary(costs)
        say(f"  {case.name}: {details[case.name]}")
    value = max(details[case.name]["median_s"] for case in CASES)
    return {MILLION_ROWS: Measurement(value, rows, details)}


def five_million_rows(say: Callable[[str], None], rows: int = 5 * ROWS, runs: int = RUNS) -> dict[str, Measurement]:
    """Measure the report of a month with 10,000 API keys: the median of `runs` runs in seconds, the most memory in
    MiB. Then `ledger verify` and `ledger export` in rows per second, and the seconds in which a router starts.

    The details have the same report grouped by key, which has 10,000 groups, and the export of one row per day.
    """
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        details["summed_us_per_row"] = fill_ledger(Path(folder, "spillway.db"), rows, LONG_CASES[0])
        try:
            for case in LONG_CASES:
                details[case.name] = _summary(_runs(Path(folder), case, rows, runs))
                say(f"  {case.name}: {details[case.name]}")
            readers = _readers(Path(folder), rows, runs, say)
        except (subprocess.SubprocessError, BenchError, ValueError) as error:
            return dict.fromkeys((*FIVE_MILLION, *READERS), not_measured(f"a command failed: {error}"))
    month = details[LONG_CASES[0].name]
    return readers | {
        FIVE_MILLION[0]: Measurement(month["median_s"], rows, details),
        FIVE_MILLION[1]: Measurement(month["most_mib"], rows, details),
    }


def _readers(folder: Path, rows: int, runs: int, say: Callable[[str], None]) -> dict[str, Measurement]:
    """Measure what else reads the whole ledger, or opens it: each once, as each takes a minute, and the start `runs`
    times."""
    last = FIRST_DAY + timedelta(days=LONG_CASES[0].days - 1)
    month = ("ledger", "export", "--from", FIRST_DAY.isoformat(), "--to", last.isoformat())
    cost = {
        "verify": _weighed(folder, ("ledger", "verify"))[1],
        "export": _weighed(folder, month)[1],
        "export --daily": _weighed(folder, (*month, "--daily"))[1],
    }
    starts = [_start_s(folder) for _ in range(runs)]
    details = {name: one._asdict() | {"rows_per_s": round(rows / one.wall_s)} for name, one in cost.items()}
    say(f"  {details}, starts in {starts} s")
    exports = {name: details[name] for name in ("export", "export --daily")}
    return {
        READERS[0]: Measurement(details["verify"]["rows_per_s"], rows, details["verify"]),
        READERS[1]: Measurement(min(one["rows_per_s"] for one in exports.values()), rows, exports),
        READERS[2]: Measurement(statistics.median(starts), rows, {"runs_s": starts}),
    }


def _start_s(folder: Path) -> float:
    """Return the seconds from the start of a router to its first answer, Python's own start included."""
    port = free_port()
    config = folder / "router.yaml"
    config.write_text(f"listen: 127.0.0.1:{port}\n{_CONFIG.format(file=folder / 'spillway.db')}", encoding="utf-8")
    began_s = time.monotonic()
    with running(Command((str(SPILLWAY), "route", "-c", str(config))), None, folder / "router.log") as process:
        while time.monotonic() - began_s < _LIMIT_S and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    return round(time.monotonic() - began_s, 3)
            time.sleep(0.01)
    raise BenchError(f"the router did not start: {(folder / 'router.log').read_text()[-400:]}")


def _runs(folder: Path, case: Case, rows: int, runs: int) -> list[Cost]:
    config = folder / "spillway.yaml"
    config.write_text(_CONFIG.format(file=folder / "spillway.db"), encoding="utf-8")
    return [_run(config, case, rows) for _ in range(runs)]


def _summary(runs: list[Cost]) -> dict[str, Any]:
    return {
        "median_s": statistics.median(run.wall_s for run in runs),
        "cpu_s": statistics.median(run.cpu_s for run in runs),
        "most_mib": max(run.rss_mib for run in runs),
        "runs": [run._asdict() for run in runs],
    }


def _run(config: Path, case: Case, rows: int) -> Cost:
    """Return what one report took.

    Raises:
        ValueError: it doesn't include all rows.
    """
    output, cost = _weighed(config.parent, ("report", *case.options, "--json"), subprocess.PIPE)
    report = json.loads(output)
    answers = sum(group["served"]["answers"] for group in report["groups"])
    if (report["requests"], report["served"]["answers"], answers) != (rows, rows, rows):
        raise ValueError(f"it reports {report['requests']} requests and {answers} answers, not of {rows}")
    return cost


def _weighed(folder: Path, words: tuple[str, ...], output: int = subprocess.DEVNULL) -> tuple[str, Cost]:
    """Run a command of spillway; return what it wrote, if that is piped, and what it took."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WEIGHED, str(SPILLWAY), *words, "-c", str(folder / "spillway.yaml")],
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        timeout=_LIMIT_S,
        check=True,
    )
    wall_s, cpu_s, rss_kib = map(float, done.stderr.splitlines()[-1].split())
    return done.stdout or "", Cost(round(wall_s, 3), round(cpu_s, 3), round(rss_kib / 1024, 1))


def fill_ledger(file: Path, rows: int, case: Case) -> float:
    """Fill a ledger and sum it up; return the microseconds of summing per row."""
    ledger = SqliteLedger.open(file)
    start, end = start_of(FIRST_DAY), start_of(FIRST_DAY + timedelta(days=case.days))
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
    entries = _entries(rows, start, end, case.keys)
    for _ in range(0, rows, _PER_COMMIT):
        ledger.commit([Write((entry,)) for entry in islice(entries, _PER_COMMIT)])
    started_s = time.monotonic()
    while ledger.sum_up(ROWS_TO_SUM):
        pass
    took_s = time.monotonic() - started_s
    ledger.close()
    return round(took_s / rows * 1e6, 2)


def _entries(rows: int, start: int, end: int, keys: int) -> Iterator[Entry]:
    """Yield one row per request: 60% local, the rest overflow, escalation and fallback; three tiers."""
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
            key_id=f"key{number % keys}",
            tier=("free", "paid", "team")[number % keys % 3],
            status="ok",
            prompt_tokens=rng.randint(100, 3000),
            completion_tokens=rng.randint(10, 500),
            gpu_us=rng.randint(1000, 100_000) if local else 0,
            amount_nano=0 if local else rng.randint(1000, 10**6),
            tariff_ref="" if local else "config@2026-10-01",
            document=number % 4 == 0,
        )
