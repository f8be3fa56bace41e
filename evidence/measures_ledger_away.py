"""What a ledger that is away costs local answers: waiting while it hangs, and rows once it is back."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import yaml

from evidence.failures import FailingUpstream
from evidence.ledger_absences import ABSENCES, HANGS, CannotMountError, LedgerUnderTest
from evidence.results import Measurement, not_measured
from spillway_router.ledger.store.open import open_ledger
from spillway_router.testing.processes import SPILLWAY, SpillwayProcess, await_ready, running

WAIT, LOST = "trust.local_wait_ledger_hung", "trust.local_rows_lost"
IDS = (WAIT, LOST)
ANSWERS = 320
"""Local answers in each phase."""
PER_S = 16
PAID_EVERY = 4
BACK_S = 30.0


@dataclass(slots=True)
class Phase:
    """What requests of one phase came to: seconds of local answers, and statuses of both kinds."""

    local_s: list[float] = field(default_factory=list)
    local: Counter[int] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)

    def p99_ms(self) -> float:
        """The 99th percentile of local answers in milliseconds."""
        return sorted(self.local_s)[int(0.99 * (len(self.local_s) - 1))] * 1000


def ledger_away(
    say: Callable[[str], None], answers: int = ANSWERS, absences: tuple[str, ...] = tuple(ABSENCES)
) -> dict[str, Measurement]:
    """Measure how much longer local answers take at the 99th percentile while the ledger hangs, the worst of the ways,
    and how many of their rows are missing once it is back."""
    details: dict[str, Any] = {}
    for name in absences:
        try:
            details[name] = asyncio.run(_absence(name, answers))
        except CannotMountError as error:
            return dict.fromkeys(IDS, not_measured(f"{name}: {error}"))
        say(f"  {name}: {details[name]}")
    hangs = [value for name, value in details.items() if name in HANGS]
    wait_ms = max(value["p99_away_ms"] - value["p99_normal_ms"] for value in hangs)
    rows = sum(value["local_answers"] for value in details.values())
    lost = sum(value["local_answers"] - value["local_rows"] for value in details.values())
    least = min(value["answers_away"] for value in hangs)
    return {WAIT: Measurement(round(wait_ms, 1), least, details), LOST: Measurement(lost, rows, details)}


async def _absence(name: str, answers: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder, ABSENCES[name](Path(folder)) as ledger:
        async with FailingUpstream(engine=True) as engine, FailingUpstream() as cloud:
            config = _config(Path(folder), ledger, engine, cloud)
            with running("route", config) as process:
                await asyncio.to_thread(await_ready, process.url, "local")
                normal = await _traffic(process.url, answers)
                with ledger.away():
                    away = await _traffic(process.url, answers)
                    up = await _metric(process.url, "spillway_ledger_up")
                back_s = await _until_back(process.url)
                after = await _traffic(process.url, answers // 8)
                status = await asyncio.to_thread(process.end)
            calls = cloud.calls
        return _findings(config, ledger, (normal, away, after), calls) | {
            "back_s": round(back_s, 2),
            "up_meanwhile": up,
            "exit_status": status,
            "log": _changes(process),
        }


def _findings(config: Path, ledger: LedgerUnderTest, phases: tuple[Phase, Phase, Phase], calls: int) -> dict[str, Any]:
    normal, away, after = phases
    opened = open_ledger(ledger.url)
    rows = [row for row in opened.entries_between(0, 2**62) if row.kind == "charged"]
    opened.close()
    verified = subprocess.run(
        [SPILLWAY, "ledger", "verify", "-c", str(config)], capture_output=True, check=False, env=dict(os.environ)
    )
    return {
        "p99_normal_ms": round(normal.p99_ms(), 1),
        "p99_away_ms": round(away.p99_ms(), 1),
        "answers_away": away.local[200],
        "local": {"normal": dict(normal.local), "away": dict(away.local), "after": dict(after.local)},
        "paid": {"normal": dict(normal.paid), "away": dict(away.paid), "after": dict(after.paid)},
        "local_answers": sum(phase.local[200] for phase in phases),
        "local_rows": sum(row.backend == "local" for row in rows),
        "paid_rows": sum(row.backend == "cloud" for row in rows),
        "paid_calls": calls,
        "verify": verified.returncode,
    }


def _config(folder: Path, ledger: LedgerUnderTest, engine: FailingUpstream, cloud: FailingUpstream) -> Path:
    part: dict[str, Any] = {"url": ledger.url}
    if ledger.journal is not None:
        part["journal"] = str(ledger.journal)
    settings = {
        "listen": "127.0.0.1:0",
        "ledger": part,
        "backends": [
            {"name": "local", "provider": "vllm", "local": True, "base_url": engine.url, "model": "m"},
            {
                "name": "cloud",
                "provider": "generic",
                "base_url": cloud.url,
                "api_key": "k",
                "model": "m",
                "price": {"input_per_million": "1", "output_per_million": "2"},
            },
        ],
        "aliases": {"loc": {"chain": ["local"]}, "paid": {"chain": ["cloud"]}},
        "budgets": [{"scope": "all", "period": "day", "limit_usd": "5"}],
        "slo": {"ttft_ms": 60000, "tpot_ms": 10000},
    }
    path = folder / "spillway.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


async def _traffic(url: str, answers: int) -> Phase:
    """Ask for local answers at a steady rate, whether or not the ones before have ended, and for paid ones between."""
    phase, tasks = Phase(), set[asyncio.Task[None]]()
    async with httpx.AsyncClient(base_url=url, timeout=90, trust_env=False, limits=httpx.Limits()) as client:
        async for number in _ticks(answers):
            tasks.add(asyncio.create_task(_ask(client, "loc", phase)))
            if number % PAID_EVERY == 0:
                tasks.add(asyncio.create_task(_ask(client, "paid", phase)))
        await asyncio.gather(*tasks)
    return phase


async def _ticks(count: int) -> AsyncIterator[int]:
    started_s = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, started_s + number / PER_S - time.monotonic()))
        yield number


async def _ask(client: httpx.AsyncClient, model: str, phase: Phase) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 16}
    began_s = time.monotonic()
    reply = await client.post("/v1/chat/completions", json=body)
    if model == "loc":
        phase.local_s.append(time.monotonic() - began_s)
        phase.local[reply.status_code] += 1
    else:
        code = "" if reply.status_code == 200 else reply.json()["error"]["code"]
        phase.paid[f"{reply.status_code} {code}".strip()] += 1


async def _metric(url: str, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        page = (await client.get(f"{url}/metrics")).text
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(f"{name} "))


async def _until_back(url: str) -> float:
    """Return the seconds until the ledger is up and no row waits any more."""
    began_s = time.monotonic()
    while await _metric(url, "spillway_ledger_up") != 1 or await _metric(url, "spillway_ledger_waiting_rows"):
        if time.monotonic() - began_s > BACK_S:
            return BACK_S
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


def _changes(process: SpillwayProcess) -> list[str]:
    """Return what the log says of the ledger's health, without times and paths."""
    words = (line.partition("spillway.alerts ")[2] for line in process.lines)
    return [re.sub(r"\S*/\S+", "FILE", text) for text in words if text.startswith("the ledger")]
