"""Crash trials: the money side of a router is killed with SIGKILL in any stage of its calls; no money may stay held.

After each crash, once the database has ended the dead router's sessions, two other routers do their upkeep at the same
time, at a time at which the dead one has been silent for long enough (their clock is an argument, so nobody waits).
Then no reservation may be open and no attempt closed twice, an acknowledged settlement must have the reported cost, and
nothing may cost more than its bound.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from evidence.money import crash_child
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.ledger.accounts import Accounts
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.maintenance import Upkeep
from spillway_router.ledger.orphans import SILENT_MS
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify
from spillway_router.ledger.writer import LedgerWriter

WAIT_S = 60


@dataclass(slots=True)
class Leaks:
    """The faults found after so many crashes; `stages` counts the stages in which calls died."""

    crashes: int = 0
    calls: int = 0
    orphans: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    leaked: int = 0
    closed_twice: int = 0
    wrong_cost: int = 0
    faults: int = 0


def leak_trials(url: str, crashes: int, seed: int, say: Callable[[str], None], *, deaf: bool = False) -> Leaks:
    """Kill `crashes` routers on the ledger of this URL, each after a random number of stages."""
    rng, leaks = random.Random(seed), Leaks()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([crash_child.__name__])
    survivors = [open_ledger(url) for _ in range(2)]
    log = logging.getLogger("spillway")
    level = log.level
    log.setLevel(logging.ERROR)  # upkeep would log a warning after every crash
    try:
        for crash in range(crashes):
            name = f"t{seed}-{crash}"
            lines = _killed(context, _named(url, name), name, rng, deaf)
            _sessions_gone(url, name)
            before = survivors[0].open_reservations(0, 2**62)
            leaks.orphans += len(before)
            _upkeep(survivors)
            _check(survivors[0], lines, leaks)
            leaks.crashes += 1
            if crash % 100 == 99:
                say(f"  {crash + 1} crashes, {leaks.orphans} calls orphaned, {leaks.leaked} leaked")
        _upkeep(survivors)
        leaks.leaked = len(survivors[0].open_reservations(0, 2**62))
        leaks.faults = verify(survivors[0]).fault_count
    finally:
        log.setLevel(level)
        for ledger in survivors:
            ledger.close()
    return leaks


def _named(url: str, name: str) -> str:
    """Return the URL with a name under which the server lists its sessions; a file has no sessions."""
    return f"{url}{'&' if '?' in url else '?'}application_name={name}" if url.startswith("postgresql:") else url


def _sessions_gone(url: str, name: str) -> None:
    """Wait until the server has ended the dead router's sessions, because it may still store what the router sent
    last."""
    if not url.startswith("postgresql:"):
        return
    deadline = time.monotonic() + WAIT_S
    with psycopg.connect(url, autocommit=True, connect_timeout=WAIT_S) as connection:
        while connection.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", (name,)).fetchone():
            assert time.monotonic() < deadline, f"the server still serves {name}, {WAIT_S} s after its end"
            time.sleep(0.002)


def _killed(
    context: multiprocessing.context.ForkServerContext, url: str, name: str, rng: random.Random, deaf: bool
) -> list[list[str]]:
    """Start a child, kill it after a random number of stages, and return the lines it reported."""
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=crash_child.spend, args=(url, name, rng.randrange(2**30), sending, deaf))
    child.start()
    sending.close()
    lines = os.fdopen(os.dup(receiving.fileno()), "rb")
    try:
        seen = [lines.readline() for _ in range(rng.randrange(1, 80))]
        time.sleep(rng.random() * 0.003)  # so that it doesn't always die right after a report
        child.kill()
        seen += lines.readlines()
    finally:
        child.kill()
        child.join(WAIT_S)
        lines.close()
        receiving.close()
    return [line.decode().split() for line in seen if line.endswith(b"\n")]


def _upkeep(survivors: list[Ledger]) -> None:
    """Run one round of upkeep of each survivor, at the same time."""
    later_s = time.time() + SILENT_MS / 1000 + 1

    async def tend(ledger: Ledger, name: str) -> None:
        writer = LedgerWriter(ledger)
        accounts = Accounts(
            writer=writer,
            lines=(),
            coefficients=WorkCoefficients(),
            wall=lambda: later_s,
            on_alert=lambda _alert: None,
            router_id=name,
        )
        await Upkeep(ledger, accounts, name, lambda: later_s).tend()
        await writer.close(WAIT_S)

    threads = [
        threading.Thread(target=asyncio.run, args=(tend(ledger, f"survivor{n}"),)) for n, ledger in enumerate(survivors)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)


def _check(ledger: Ledger, lines: list[list[str]], leaks: Leaks) -> None:
    last: dict[str, tuple[str, int]] = {}
    for stage, request, nano in lines:
        last[request] = (stage, int(nano))
    leaks.calls += len(last)
    for request, (stage, settled_nano) in last.items():
        rows = ledger.entries_of(request)
        kinds = Counter(row.kind for row in rows)
        closings = kinds["charged"] + kinds["released"]
        cost_nano = sum(row.amount_nano for row in rows)
        leaks.closed_twice += closings > 1
        if stage == "settled":
            leaks.wrong_cost += cost_nano != settled_nano
        else:
            leaks.stages[stage] = leaks.stages.get(stage, 0) + 1
            leaks.wrong_cost += not 0 <= cost_nano <= crash_child.BOUND
