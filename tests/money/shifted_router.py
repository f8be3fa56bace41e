"""Run a router in a world whose time is shifted, on a machine whose wall clock is ahead of that world's.

    python -m tests.money.shifted_router WORLD_S AHEAD_S route -c FILE

The database server is of the same world, and its clock is right.
"""

from __future__ import annotations

import sys
import time


def shift(world_s: float, ahead_s: float) -> None:
    """Shift this process's wall clock and the database server's time, by seconds."""
    real_s, real_ns = time.time, time.time_ns
    time.time = lambda: real_s() + world_s + ahead_s
    time.time_ns = lambda: real_ns() + int((world_s + ahead_s) * 1e9)
    from spillway_router.ledger.store.postgres.ledger import PostgresLedger

    server_s = PostgresLedger.server_s
    PostgresLedger.server_s = lambda self: (server_s(self) or 0.0) + world_s


if __name__ == "__main__":
    shift(float(sys.argv[1]), float(sys.argv[2]))
    from spillway_router.cli import app

    app(sys.argv[3:])
