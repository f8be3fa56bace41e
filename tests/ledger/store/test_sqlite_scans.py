"""Two threads that share a long range tell what one tells."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from random import Random

import pytest

from spillway_router.ledger.calendar import start_of
from spillway_router.ledger.store.sqlite.file import connect
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.store.sqlite.scans import Scans
from spillway_router.testing.books import fill_books


@pytest.mark.parametrize("days", [(0, 3), (0, 1), (1, 2), (0, 30)])
def test_shared_scans_equal_those_of_one(days: tuple[int, int], tmp_path: Path) -> None:
    first = date(2026, 11, 1)
    start, end = (start_of(first) + day * 86_400_000 for day in days)
    ledger = SqliteLedger.open(tmp_path / "spillway.db")
    for number in range(20):
        fill_books(Random(number), ledger, first, f"s{number}")
    alone = ledger.totals(start, end)
    ledger.close()
    path = tmp_path / "spillway.db"
    shared = Scans(path, (connect(path), connect(path)), rows_to_share=1)
    assert shared.totals(start, end) == alone
    assert len(alone) > 20
    assert shared.totals(end + 10**12, end + 10**13) == ()
    shared.close()
