"""Check the running sums of a ledger in a process of its own, on another core than the walk over the hash chain.

    python -m spillway_router.ledger.store.sqlite.sums_process LEDGER > JSON

Comparing the sums takes about as long as everything else that `spillway ledger verify` does. Threads don't share that
work: SQLite gives the interpreter's lock away with each row, and two threads that read rows wait for it in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from spillway_router.ledger.interface import WrongSums

MANY_ROWS = 100_000
"""The rows whose check takes longer than a process takes to start."""


@contextmanager
def sums_process(path: Path) -> Iterator[Callable[[], WrongSums | None]]:
    """Start the process for the block. What it yields waits for the result, which is None if the process failed."""
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    def wrong_sums() -> WrongSums | None:
        output, _ = process.communicate()
        if process.returncode:
            return None
        return [(int(start_ms), str(name)) for start_ms, name in json.loads(output)]

    with process:
        try:
            yield wrong_sums
        finally:
            process.kill()


def main(path: Path) -> None:
    """Write the running sums that differ from their rows as JSON. Raises LedgerError."""
    from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

    with closing(SqliteLedger.open_to_read(path)) as ledger, ledger.checks() as checks:
        sys.stdout.write(json.dumps(list(checks.wrong_sums())))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
