"""kill -9 of a process that writes the ledger, as often as required: is every acknowledged row there exactly once?

Children come from a fork server that has imported everything, so a trial takes a tenth of a second. Each is a process
of its own, killed by SIGKILL while it writes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evidence.durability import kill9_child
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import close_orphans
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.verify import verify

WAIT_S = 60


@dataclass(frozen=True, slots=True)
class Kill9Outcome:
    """The outcome of all trials.

    It counts acknowledged rows, how many of them are missing or stored more than once, the faults that `verify` finds,
    all reservations that the dead processes left, and those still open once the orphans were closed.
    """

    trials: int
    acknowledged: int
    stored: int
    lost: int
    doubled: int
    faults: int
    orphans: int
    leaked: int


def kill9_trials(
    place: Path | str, trials: int, seed: int, *, fault: bool = False, say: Callable[[str], None] = lambda _line: None
) -> Kill9Outcome:
    """Kill the writer of one ledger (a SQLite file, or any URL) `trials` times, each after a random number of
    acknowledged rows.

    A row may be stored without its acknowledgement having left the process, but never the other way round, unless
    `fault` makes the child acknowledge too early.
    """
    url = f"sqlite:///{place}" if isinstance(place, Path) else place
    random_ = random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([kill9_child.__name__])
    acknowledged: set[str] = set()
    for trial in range(trials):
        acknowledged |= _one(context, url, f"t{trial}", random_.randrange(1, 120), fault)
        if trial % 100 == 99:
            say(f"  {trial + 1} kills, {len(acknowledged)} rows acknowledged")
    ledger = open_ledger(url)
    try:
        return _outcome(ledger, trials, acknowledged)
    finally:
        ledger.close()


def _outcome(ledger: Ledger, trials: int, acknowledged: set[str]) -> Kill9Outcome:
    stored = Counter(f"{row.request_id} {row.kind}" for row in ledger.entries_between(0, 2**62))
    faults = verify(ledger).fault_count
    orphans = len(ledger.open_reservations(0, 2**62))
    closed = len(close_orphans(ledger, 2**50, 1000))
    return Kill9Outcome(
        trials=trials,
        acknowledged=len(acknowledged),
        stored=stored.total() + closed,
        lost=sum(1 for row in acknowledged if not stored[row]),
        doubled=sum(1 for times in stored.values() if times > 1),
        faults=faults + verify(ledger).fault_count,
        orphans=orphans,
        leaked=len(ledger.open_reservations(0, 2**62)),
    )


def _one(context: multiprocessing.context.ForkServerContext, url: str, name: str, rows: int, fault: bool) -> set[str]:
    """Start a writer and kill it after it acknowledged `rows` rows; return all that it acknowledged."""
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=kill9_child.write, args=(url, name, 0, sending, fault))
    child.start()
    sending.close()
    lines = os.fdopen(os.dup(receiving.fileno()), "rb")
    try:
        seen = [lines.readline() for _ in range(rows)]
        child.kill()
        seen += lines.readlines()
    finally:
        child.kill()
        child.join(WAIT_S)
        lines.close()
        receiving.close()
    return {line.decode().strip() for line in seen if line.endswith(b"\n")}
