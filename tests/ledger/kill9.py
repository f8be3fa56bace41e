"""kill -9 of a process that writes the ledger, as often as asked: is every acknowledged row there, exactly once?"""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from spillway_router.ledger.sqlite import SqliteLedger
from spillway_router.ledger.url import open_ledger

CHILD = Path(__file__).with_name("kill9_child.py")


@dataclass(frozen=True, slots=True)
class Kill9Outcome:
    """Rows acknowledged over all trials, and how many of them were missing or stored more than once."""

    trials: int
    acknowledged: int
    stored: int
    lost: int
    doubled: int


def kill9_trials(place: Path | str, trials: int, seed: int, *, fault: bool = False) -> Kill9Outcome:
    """Kill the writer of one database (file or URL) `trials` times, each after a random number of acknowledged rows.

    A row may be stored without its acknowledgement having come out, never the other way round,
    unless `fault` makes the child acknowledge too early.
    """
    random_ = random.Random(seed)
    acknowledged: set[str] = set()
    for trial in range(trials):
        acknowledged |= _one(place, f"t{trial}", random_.randrange(1, 120), fault)
    ledger = open_ledger(place) if isinstance(place, str) else SqliteLedger.open(place)
    stored = Counter(row.request_id for row in ledger.entries_between(0, 2**62))
    ledger.close()
    lost = sum(1 for request_id in acknowledged if not stored[request_id])
    doubled = sum(1 for times in stored.values() if times > 1)
    return Kill9Outcome(trials, len(acknowledged), stored.total(), lost, doubled)


def _one(place: Path | str, name: str, rows: int, fault: bool) -> set[str]:
    """Start a writer, kill it after it acknowledged `rows` rows; returns all ids it acknowledged."""
    command = [sys.executable, str(CHILD), str(place), name, "0", *(["early"] if fault else [])]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        seen = [child.stdout.readline() for _ in range(rows)]
        child.kill()
        seen += child.stdout.readlines()
    finally:
        child.kill()
        child.stdout.close()
        child.wait(30)
    return {line.decode().strip() for line in seen if line.endswith(b"\n")}
