"""A router's process for test_postgres.py: many threads reserve against one cap; prints how many held and how many
were refused.

Usage: postgres_child.py URL LIMIT_NANO AMOUNT_NANO THREADS TRIES NAME
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from spillway_router.ledger.entries import Entry
from spillway_router.ledger.records import Cap, Write
from spillway_router.ledger.store.postgres.ledger import PostgresLedger

T0 = 1_790_000_000_000
DAY = 86_400_000


def main() -> None:
    url, (limit, amount, threads, tries), name = sys.argv[1], map(int, sys.argv[2:6]), sys.argv[6]
    cap = Cap("all", "day", T0 // DAY * DAY, limit)
    together = Barrier(threads)

    def reserve(thread: int) -> int:
        ledger = PostgresLedger.open(url)  # a connection each, so that they really race
        together.wait(60)
        held = 0
        for number in range(tries):
            hold = Entry(
                kind="reserved",
                request_id=f"{name}-{thread}-{number}",
                attempt_no=1,
                ts=T0,
                backend="groq",
                key_id="k1",
                reserved_nano=amount,
            )
            held += ledger.commit((Write((hold,), (cap,)),))[0] is None
        ledger.close()
        return held

    with ThreadPoolExecutor(threads) as pool:
        held = sum(pool.map(reserve, range(threads)))
    print(held, threads * tries - held)


if __name__ == "__main__":
    main()
