"""One pass over rows and balances shows whether any balance is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from tests.ledger.helpers import T0, entry, tamper

from spillway_router.ledger.balance_proof import balances_agree
from spillway_router.ledger.posting import OpenHold
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger

HOUR_MS = 3_600_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spillway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(path)
    for number in range(40):
        whose = {"key_id": f"k{number % 3}", "tier": ("", "free")[number % 2], "ts": T0 + number * 7 * HOUR_MS}
        opened.append([entry("reserved", f"r{number}", reserved_nano=100 + number, **whose)])
        if number % 4:
            kept = 9 if number % 5 == 0 else 0
            opened.append(
                [entry("charged", f"r{number}", amount_nano=number, reserved_nano=kept, user_id="u", **whose)]
            )
    yield opened
    opened.close()


def agree(ledger: SqliteLedger, seed: int = 1) -> bool:
    held = (OpenHold._make(values) for values in _held(ledger))
    with ledger.checks() as checks:
        return balances_agree(checks, list(held), Random(seed).getrandbits)


def _held(ledger: SqliteLedger) -> list[tuple[int, int, str, str, str, str, str]]:
    with ledger.checks() as checks:
        return list(checks.holds().values())


def test_honest_balances_agree_for_every_draw(ledger: SqliteLedger) -> None:
    assert all(agree(ledger, seed) for seed in range(20))


def test_each_wrong_balance_is_seen(ledger: SqliteLedger, path: Path) -> None:
    with ledger.checks() as checks:
        stored = list(checks.balances())
    assert len(stored) > 60
    for scope, period, start_ms, *_ in stored:
        where = f"WHERE scope = '{scope}' AND period = '{period}' AND start_ms = {start_ms}"
        for column in ("spent_nano", "reserved_nano"):
            tamper(path, f"UPDATE balances SET {column} = {column} - 1 {where}")
            assert not agree(ledger), (scope, period, column)
            tamper(path, f"UPDATE balances SET {column} = {column} + 1 {where}")
    assert agree(ledger)


@pytest.mark.parametrize(
    "sql",
    [
        # What one balance lacks, another has; and what is not spent is held.
        "UPDATE balances SET spent_nano = spent_nano + CASE scope WHEN 'key:k1' THEN 5 ELSE -5 END"
        " WHERE scope IN ('key:k1', 'key:k2') AND period = 'month'",
        "UPDATE balances SET spent_nano = spent_nano - 3, reserved_nano = reserved_nano + 3 WHERE scope = 'all'",
        "UPDATE balances SET scope = 'key:k9' WHERE scope = 'key:k1'",
        "UPDATE balances SET start_ms = start_ms + 3600000 WHERE scope = 'all' AND period = 'hour'",
        "UPDATE entries SET amount_nano = amount_nano + 1 WHERE request_id = 'r7' AND kind = 'charged'",
    ],
)
def test_wrongs_that_add_up_to_nothing_are_seen(ledger: SqliteLedger, path: Path, sql: str) -> None:
    tamper(path, sql)
    assert not agree(ledger)
