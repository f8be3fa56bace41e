"""Compare the ledger with the provider's own bill, for mixed requests through a router that is killed repeatedly.

The requests are streams, whole answers and embeddings. Four paid backends fail in all ways, billed or not, and either
stop or continue billing when a client leaves. A local engine gives unsure answers, which are escalated. From time to
time the router is killed with SIGKILL while requests are in progress, and another one starts on the same ledger.

Every cost that a router knows exactly must be exact at once. A cost that it can't know (a client that left, an answer
without a usage) is charged by an estimate, with the most that it can be, or at its bound if the router died, and then
corrected by `spillway ledger reconcile`. In the end every attempt
must cost in the ledger what it costs on the bill, to the nano-dollar.
"""

from __future__ import annotations

import asyncio
import csv
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence.money.mix import FAILURES, random_backend, random_request
from evidence.money.parts import (
    MoneyRequest,
    ProviderProcess,
    fake_providers,
    send,
    start_router,
    stop_router,
    write_config,
)
from spillway_router.ledger.entries import Entry
from spillway_router.ledger.orphans import SILENT_MS, close_orphans
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify
from spillway_router.testing.processes import ROOT, SPILLWAY, SpillwayProcess

AT_ONCE = 48
PLACES = {"a": "openai", "b": "generic", "c": "openai", "d": "generic"}
_KEY = tuple[str, int]


@dataclass(slots=True)
class BillTrial:
    """The result; `difference_nano` sums the absolute differences between ledger and bill over all attempts."""

    requests: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    left_early: int = 0
    kills: int = 0
    orphans: int = 0
    attempts: int = 0
    billed_calls: int = 0
    bill_nano: int = 0
    ledger_nano_before: int = 0
    ledger_nano: int = 0
    difference_nano: int = 0
    measured: int = 0
    """Attempts whose cost the ledger knew without the bill; the next field sums their differences."""
    measured_difference_nano: int = 0
    reconciled: int = 0
    below_bill_before: dict[str, int] = field(default_factory=dict)
    """Attempts that cost less in the ledger than on the bill before reconciling, by the kind of row that closed them.

    `released` attempts are failures that the provider billed nevertheless (a 502 after the work).
    """
    faults: int = 0
    leaked: int = 0


def bill_trial(
    folder: Path, requests: int, kills: int, seed: int, say: Callable[[str], None], *, forget: int = 0
) -> BillTrial:
    """Run the trial. `forget` leaves that many lines of the bill out when reconciling, as a seeded fault."""
    rng, trial = random.Random(seed), BillTrial(requests=requests, kills=kills)
    config = folder / "spillway.yaml"
    with fake_providers() as money:
        places = [random_backend(rng, name, money.url, provider) for name, provider in PLACES.items()]
        money.add({place.name: place.till for place in places})
        write_config(config, _settings(folder, money.url, [dict(place.backend) for place in places]))
        asks = [_ask(rng) for _ in range(requests)]
        started = time.monotonic()
        for part in range(kills + 1):
            lives = None if part == kills else int(len(asks) / (kills + 1 - part) * rng.uniform(0.7, 1.3)) + 1
            router = start_router(config)
            try:
                asks = asyncio.run(_send(router, asks, trial, lives))
            finally:
                stop_router(router, kill=part < kills)
            trial.orphans += _orphans(config, folder)
            sent = sum(trial.statuses.values())
            say(f"  {sent} requests, {part + 1} routers, {sent / (time.monotonic() - started):.0f}/s")
        _compare(config, folder, _settled_bill(money), trial, forget)
    return trial


def _settings(folder: Path, url: str, backends: list[dict[str, Any]]) -> Mapping[str, Any]:
    engine = {"name": "engine", "provider": "vllm", "local": True, "base_url": f"{url}/engine/v1", "model": "m"}
    return {
        "ledger": {"url": f"sqlite:///{folder / 'ledger.db'}"},
        "backends": [engine, *backends],
        "aliases": {
            "paid": {"chain": ["a", "b", "c"]},
            "other": {"chain": ["d", "c", "b"]},
            "unsure": {"chain": ["engine", "d"]},
        },
        "confidence": {"threshold": 0.8, "escalate_to": ["a", "d"]},
        "budgets": [{"scope": "all", "period": "month", "limit_usd": "100000"}],
        "limits": {"answer_s": 60},
    }


def _ask(rng: random.Random) -> MoneyRequest:
    model = rng.choices(("paid", "other", "unsure"), (5, 3, 2))[0]
    return random_request(rng, list(PLACES), model, failures=0.05, aborts=0.12, kinds=(*FAILURES, "gateway"))


async def _send(
    router: SpillwayProcess, asks: list[MoneyRequest], trial: BillTrial, lives: int | None
) -> list[MoneyRequest]:
    """Send the requests, several at once, until the router is killed after `lives` answers; return the unsent ones."""
    url, gate = router.url, asyncio.Semaphore(AT_ONCE)
    left: list[MoneyRequest] = []
    done = 0

    async def one(asked: MoneyRequest) -> None:
        nonlocal done
        async with gate:
            if done == lives:
                left.append(asked)
                return
            answer = await send(url, asked)
        trial.statuses[answer.status] = trial.statuses.get(answer.status, 0) + 1
        trial.left_early += not answer.stayed
        if done != lives:
            done += 1
            if done == lives:
                router.process.kill()

    await asyncio.gather(*map(one, asks))
    return left


def _orphans(config: Path, folder: Path) -> int:
    """Do what the upkeep of another router does once the dead router has been silent for long enough."""
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    try:
        return len(close_orphans(ledger, int(time.time() * 1000) + SILENT_MS + 1))
    finally:
        ledger.close()


def _settled_bill(money: ProviderProcess) -> list[tuple[str, str, int]]:
    """Return the bill once it stops growing; calls whose router died continue at the provider for a moment."""
    lines, before = money.bill(), -1
    while len(lines) != before:
        before = len(lines)
        time.sleep(1.0)
        lines += money.bill(len(lines))
    return lines


def _compare(config: Path, folder: Path, lines: list[tuple[str, str, int]], trial: BillTrial, forget: int) -> None:
    bill: dict[_KEY, int] = {}
    for _, call, nano in lines:
        request_id, _, attempt = call.rpartition(".")
        key = (request_id, int(attempt or 0))
        bill[key] = bill.get(key, 0) + nano
    trial.billed_calls, trial.bill_nano = len(lines), sum(bill.values())
    costs, closing = _costs(folder)
    trial.attempts, trial.ledger_nano_before = len(closing), sum(costs.values())
    for key, row in closing.items():
        if row.status == "ok" and not row.at_most_nano:
            trial.measured += 1
            trial.measured_difference_nano += abs(costs[key] - bill.get(key, 0))
        if max(costs[key], row.at_most_nano) < bill.get(key, 0):
            trial.below_bill_before[row.kind] = trial.below_bill_before.get(row.kind, 0) + 1
    open_ends = {
        key: 0
        for key, row in closing.items()
        if (row.status not in ("ok", "discarded") or row.at_most_nano) and not row.local
    }
    wanted = list({**open_ends, **bill}.items())
    trial.reconciled = _reconcile(config, folder, wanted[forget:])
    costs, closing = _costs(folder)
    trial.ledger_nano = sum(costs.values())
    trial.difference_nano = sum(abs(costs.get(key, 0) - bill.get(key, 0)) for key in costs.keys() | bill.keys())


def _costs(folder: Path) -> tuple[dict[_KEY, int], dict[_KEY, Entry]]:
    """Return, per attempt, the nano-dollars of all its rows, and the row that closed it."""
    costs: dict[_KEY, int] = {}
    closing: dict[_KEY, Entry] = {}
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    try:
        for entry in ledger.entries_between(0, 2**62):
            key = (entry.request_id, entry.attempt_no)
            if entry.kind in ("charged", "released", "adjusted"):
                costs[key] = costs.get(key, 0) + entry.amount_nano
            if entry.kind in ("charged", "released"):
                closing[key] = entry
    finally:
        ledger.close()
    return costs, closing


def _reconcile(config: Path, folder: Path, bill: Iterable[tuple[_KEY, int]]) -> int:
    """Run `spillway ledger reconcile` with the provider's bill; return the number of charges it changed."""
    file = folder / "bill.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(("request_id", "attempt_no", "cost_nano"))
        table.writerows((*key, nano) for key, nano in bill)
    command = [SPILLWAY, "ledger", "reconcile", str(file), "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    return next((int(line.split()[0]) for line in done.stdout.splitlines() if line.endswith("  adjusted")), 0)


def checked(folder: Path, trial: BillTrial) -> None:
    """Record the faults that `verify` reports at the end, and the holds that are still open."""
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}")
    try:
        trial.faults = verify(ledger).fault_count
        trial.leaked = len(ledger.open_reservations(0, 2**62))
    finally:
        ledger.close()
