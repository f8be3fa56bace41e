"""Kill backups and restores at each of their steps on files, in processes of their own; print a line for each end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from tests.ledger.helpers import T0, entry

from spillway_router.ledger.errors import LedgerConfigError
from spillway_router.ledger.store.sqlite.backup import back_up, restore
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify

STEPS = ("os.rename", "os.link", "os.remove", "os.mkdir", "open")


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that is killed before its so many-th step; return whether it ended before that."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    steps = count(1)

    def look(event: str, _arguments: object) -> None:
        if event in STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    action()
    os._exit(0)


def rows_in(path: Path) -> int:
    """Return the number of rows of a ledger without a fault."""
    ledger = SqliteLedger.open_to_read(path)
    verification = verify(ledger)
    ledger.close()
    assert verification.holds, verification.faults
    return verification.rows


def try_backup(folder: Path, step: int) -> bool:
    """Kill a backup; what has its name then is a whole one."""
    ledger, copy = folder / "ledger.db", folder / "copy.db"
    ended = killed_at(step, lambda: back_up(ledger, copy))
    print("backup", "whole" if copy.exists() else "none")
    if not copy.exists():
        back_up(ledger, copy)
    assert rows_in(copy) == 3
    return ended


def try_restore(folder: Path, step: int) -> bool:
    """Kill a restore of 3 rows over 4; there is one of both, or no router starts until the restore is repeated."""
    ledger, copy = folder / "ledger.db", folder / "copy.db"
    back_up(ledger, copy)
    opened = SqliteLedger.open(ledger)
    opened.append((entry("charged", "later", amount_nano=5),))
    opened.close()
    ended = killed_at(step, lambda: restore(copy, ledger, T0))
    if ledger.exists():
        print("restore", rows_in(ledger))
    else:
        with pytest.raises(LedgerConfigError, match="interrupted"):
            SqliteLedger.open(ledger)
        print("restore", "refused")
    kept = [path for path in (ledger, *folder.glob("ledger.db.before-restore-*")) if path.exists()]
    assert any(rows_in(path) == 4 for path in kept)
    if not ended:
        restore(copy, ledger, T0 + 1000)
    assert rows_in(ledger) == 3
    return ended


def main(folder: Path) -> None:
    """Try each step of both, until there is none left."""
    for attempt in (try_backup, try_restore):
        for step in count(1):
            place = folder / f"{attempt.__name__}-{step}"
            place.mkdir()
            ledger = SqliteLedger.open(place / "ledger.db")
            ledger.append([entry("charged", f"r{number}", amount_nano=5) for number in range(3)])
            ledger.close()
            if attempt(place, step):
                break


if __name__ == "__main__":
    main(Path(sys.argv[1]))
