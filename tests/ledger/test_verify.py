"""`verify` finds every kind of damage, and nothing in an honest ledger."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import apsw
import orjson
import psycopg
import pytest
from tests.ledger.contract import RENTAL
from tests.ledger.helpers import D0, T0, entry, tamper

from spillway_router.ledger.entries import COLUMNS, GENESIS, link_of, row_of
from spillway_router.ledger.interface import Checks, Ledger
from spillway_router.ledger.recompute import ChargeCounts
from spillway_router.ledger.store.migrations import load_migrations
from spillway_router.ledger.store.postgres.ledger import PostgresLedger
from spillway_router.ledger.store.sqlite import migrations
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.verify import Verified, verify
from spillway_router.testing import MemoryLedger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spillway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(path)
    fill(opened)
    yield opened
    opened.close()


def fill(ledger: Ledger) -> None:
    """Some of everything."""
    ledger.append([entry("charged", f"l{i}", local=True, backend="local", status="ok", gpu_us=5) for i in range(5)])
    ledger.append([entry("reserved", f"r{i}", reserved_nano=100) for i in range(5)])
    ledger.append((entry("charged", "r0", amount_nano=70, status="ok"), entry("released", "r1")))
    guess = {"amount_nano": 100, "estimated_nano": 100, "at_most_nano": 100}
    ledger.append((entry("charged", "r2", status="unknown", **guess),))
    ledger.append((entry("adjusted", "r2", amount_nano=-60, status="unknown", calls='{"search":1}'),))
    ledger.append((entry("charged", "r3", amount_nano=5, status="discarded"),))
    ledger.append((entry("charged", "r3", attempt=2, amount_nano=5, status="ok"),))
    ledger.append((entry("gpu_hour", "rent_1", amount_nano=1000), entry("idle", "idle-day", amount_nano=900)))
    KeyStore(ledger.keys).create(KeySpec("ann"), b"ann123", bytes(range(32)), T0)
    ledger.rentals.add(RENTAL)


def test_an_honest_ledger_holds(ledger: SqliteLedger) -> None:
    verification = verify(ledger)
    assert verification == Verified(
        rows=18,
        linked=18,
        head=list(ledger.chain())[-1].link.hex(),
        faults=(),
        fault_count=0,
        charges=ChargeCounts(adjusted=1),
        acts=2,
    )
    assert verification.holds
    memory = MemoryLedger()
    fill(memory)
    assert verify(memory) == verification


def test_a_noted_head_shows_that_rows_were_cut_off(ledger: SqliteLedger, path: Path) -> None:
    early = verify(ledger).head
    ledger.append((entry("charged", "later", local=True),))
    assert verify(ledger, early).holds
    late = verify(ledger).head
    tamper(path, "DELETE FROM entries WHERE request_id = 'later'")
    assert verify(ledger).holds
    assert [fault.rule for fault in verify(ledger, late).faults] == ["chain"]


@pytest.mark.parametrize(
    ("sql", "rule", "seq"),
    [
        ("UPDATE entries SET completion_tokens = 9 WHERE seq = 3", "chain", 3),
        ("UPDATE entries SET local = 0 WHERE seq = 2", "chain", 2),
        ("UPDATE entries SET link = zeroblob(32) WHERE seq = 4", "chain", 4),
        ("DELETE FROM entries WHERE seq = 5", "chain", 6),
        ("UPDATE entries SET seq = 100 WHERE seq = 1", "chain", 2),
        ("UPDATE entries SET link = x'' WHERE seq = 7", "chain", 7),
        ("UPDATE entries SET prompt_tokens = -1 WHERE seq = 1", "amounts", 1),
        ("UPDATE entries SET amount_nano = 71 WHERE request_id = 'r0' AND kind = 'charged'", "balances", 0),
        ("UPDATE entries SET status = 'ok' WHERE request_id = 'r3' AND kind = 'charged'", "answers", 0),
        ("UPDATE balances SET spent_nano = spent_nano - 1 WHERE scope = 'tier:free' AND period = 'day'", "balances", 0),
        ("DELETE FROM balances WHERE scope = 'all' AND period = 'hour'", "balances", 0),
        ("DELETE FROM holds", "open holds", 0),
        ("UPDATE holds SET reserved_nano = 99", "open holds", 0),
        ("UPDATE entries SET amount_nano = 1001 WHERE kind = 'idle'", "idle time", 0),
        ("UPDATE slot_sums SET prompt_tokens = prompt_tokens + 1 WHERE attempts > 1", "sums", 0),
        ("DELETE FROM slot_sums", "sums", 0),
        ("UPDATE slot_sums SET at_most_nano = 0 WHERE at_most_nano > 0", "sums", 0),
        ("UPDATE api_keys SET role = 'admin'", "acts", 0),
        ("UPDATE api_keys SET backends = 'cloud'", "acts", 0),
        ("UPDATE api_keys SET budget_nano = 5, budget_period = 'day'", "acts", 0),
        ("UPDATE api_keys SET old_sha256 = zeroblob(32), old_until = 9999999999999", "acts", 0),
        ("UPDATE api_keys SET secret_sha256 = zeroblob(32)", "acts", 0),
        ("DELETE FROM api_keys", "acts", 0),
        (
            "INSERT INTO api_keys (id, name, role, tier, privacy, may_route, created, secret_sha256)"
            " SELECT 'another', name, role, tier, privacy, may_route, created, secret_sha256 FROM api_keys",
            "acts",
            0,
        ),
        ("UPDATE rentals SET price_nano_per_hour = 1", "acts", 0),
        ("UPDATE rentals SET stopped_ms = started_ms + 1", "acts", 0),
        ("DELETE FROM acts", "acts", 0),
        ("UPDATE acts SET actor = 'somebody else' WHERE seq = 1", "acts", 0),
        ("DELETE FROM acts WHERE seq = 1", "acts", 0),
        ("UPDATE entries SET service = 'flex' WHERE seq = 12", "chain", 12),
        ("UPDATE entries SET at_most_nano = 0 WHERE seq = 13", "chain", 13),
        ("UPDATE entries SET cache_write_tokens = -1 WHERE seq = 11", "amounts", 11),
        ("UPDATE key_sums SET cost_nano = cost_nano - 1 WHERE cost_nano > 5", "sums", 0),
        (
            "INSERT INTO key_sums SELECT day + 1, group_id, key_id, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0"
            " FROM key_sums",
            "sums",
            0,
        ),
        ("UPDATE sum_groups SET decision = 'other' WHERE local", "sums", 0),
        ("UPDATE marks SET summed_seq = summed_seq - 4", "sums", 0),
        (
            "UPDATE entries SET attempt_no = 1, kind = 'charged' WHERE request_id = 'r1' AND kind = 'released'",
            "chain",
            12,
        ),
        ("UPDATE entries SET request_id = 'r0' WHERE request_id = 'r1' AND kind = 'released'", "closing", 12),
    ],
)
def test_damage_is_found_and_the_first_bad_row_named(
    ledger: SqliteLedger, path: Path, sql: str, rule: str, seq: int
) -> None:
    while ledger.sum_up(7):
        pass
    assert verify(ledger).holds
    tamper(path, sql)
    verification = verify(ledger)
    assert not verification.holds
    assert (rule, seq) in [(fault.rule, fault.seq) for fault in verification.faults]


_SUMS_SPOILT = "UPDATE slot_sums SET prompt_tokens = prompt_tokens + 1 WHERE attempts > 1"


@pytest.mark.parametrize("fails", [False, True])
def test_the_sums_of_many_rows_are_checked_in_another_process_or_here_if_that_fails(
    ledger: SqliteLedger, path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr("spillway_router.ledger.store.sqlite.ledger.MANY_ROWS", 18)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    if fails:
        monkeypatch.setattr("sys.executable", "/bin/false")
    checks_here = Mock(side_effect=ledger._wrong_sums)
    monkeypatch.setattr(ledger, "_wrong_sums", checks_here)
    ledger.sum_up(100)
    assert verify(ledger).holds
    assert checks_here.called == fails
    tamper(path, _SUMS_SPOILT)
    here = verify(ledger)
    assert here.fault_count > 1
    monkeypatch.setattr("spillway_router.ledger.store.sqlite.ledger.MANY_ROWS", 19)
    assert verify(ledger) == here


def test_the_process_that_checks_the_sums_ends_with_the_check(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spillway_router.ledger.store.sqlite.ledger.MANY_ROWS", 1)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            super().__init__([sys.executable, "-c", "import time; time.sleep(600)", *command[3:]], **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    monkeypatch.setattr(SqliteLedger, "canonical", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify(ledger)
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_rows_of_a_database_from_before_the_chain_may_only_come_first(path: Path) -> None:
    SqliteLedger.open(path, load_migrations(migrations.__name__)[:1]).close()
    old = apsw.Connection(str(path))
    names = COLUMNS[: COLUMNS.index("router_id")]
    for each in (
        entry("reserved", "open", reserved_nano=40),
        entry("reserved", "done", reserved_nano=40),
        entry("charged", "done", amount_nano=30, ts=D0 + 86_400_000),
        entry("charged", "plain", amount_nano=3),
    ):
        marks = ",".join("?" * len(names))
        old.execute(f"INSERT INTO entries ({','.join(names)}) VALUES ({marks})", row_of(each)[:-1])
    old.close()
    ledger = SqliteLedger.open(path)
    assert verify(ledger).holds
    assert ledger.balance("backend:groq", "day", D0).spent_nano == 33
    new = entry("charged", "open", amount_nano=40)
    ledger.append((new,))
    verification = verify(ledger)
    assert (verification.rows, verification.linked, verification.head, verification.holds) == (
        5,
        1,
        link_of(GENESIS, row_of(new)).hex(),
        True,
    )
    ledger.close()


def test_rows_from_before_a_migration_keep_their_links(path: Path) -> None:
    steps = load_migrations(migrations.__name__)
    rows = [*(entry("charged", f"l{i}", local=True, confidence=i / 7) for i in range(3)), entry("reserved", "open")]
    SqliteLedger.open(path, steps[:9]).close()
    old = apsw.Connection(str(path))
    link = GENESIS
    for seq, row in enumerate(rows, 1):
        values = tuple(row)[:25]
        link = sha256(link + orjson.dumps(values)).digest()
        marks = ",".join("?" * 27)
        old.execute(f"INSERT INTO entries (seq,{','.join(COLUMNS[:25])},link) VALUES ({marks})", (seq, *values, link))
    old.execute("INSERT INTO holds VALUES ('open', 1, 0, ?, 'groq', 'k1', 'free', '')", (T0,))
    ledger = SqliteLedger.open(path)
    assert list(ledger.entries_between(T0, T0 + 1)) == rows
    assert verify(ledger) == Verified(rows=4, linked=4, head=link.hex(), faults=(), fault_count=0)
    # A router of the version before goes on writing beside this one.
    ledger.append((entry("charged", "new", amount_nano=3, user_id="u1"),))
    link = sha256(ledger.head()[1] + orjson.dumps(tuple(entry("charged", "late", local=True))[:25])).digest()
    values = (6, *tuple(entry("charged", "late", local=True))[:25], link)
    old.execute(f"INSERT INTO entries (seq,{','.join(COLUMNS[:25])},link) VALUES ({marks})", values)
    ledger.append((entry("charged", "newer", local=True),))
    assert verify(ledger).holds
    assert verify(ledger).linked == 7
    ledger.close()
    old.close()


def test_keys_and_rentals_from_before_the_acts_are_noted_once(path: Path) -> None:
    SqliteLedger.open(path, load_migrations(migrations.__name__)[:9]).close()
    old = apsw.Connection(str(path))
    old.execute("INSERT INTO api_keys VALUES ('k1', 'ann', 'admin', '', 'any', 0, 5, NULL, zeroblob(32))")
    old.execute("INSERT INTO rentals VALUES ('rent_1', 't4', 1, 5, 'reserved', 7, NULL, 'cli')")
    old.close()
    ledger = SqliteLedger.open(path)
    assert [each.act.kind for each in ledger.acts.all()] == ["key.found", "rental.found"]
    assert ledger.rentals.stop("rent_1", 9)
    assert ledger.keys.revoke("k1", 9)
    assert verify(ledger).faults == ()
    ledger.close()
    tamper(path, "DELETE FROM acts")
    again = SqliteLedger.open(path)
    assert [fault.rule for fault in verify(again).faults] == ["acts", "acts"]
    again.close()


def test_writing_meanwhile_is_no_fault(ledger: SqliteLedger) -> None:
    class Busy(SqliteLedger):
        """Writes rows and sums them up while somebody checks the rows."""

        @contextmanager
        def checks(self) -> Iterator[Checks]:
            self.append((entry("reserved", "before", reserved_nano=7, ts=T0),))
            with super().checks() as checks:
                self.append((entry("reserved", "meanwhile", reserved_nano=7, ts=T0),))
                self.append((entry("charged", "before", amount_nano=7, ts=T0),))
                self.sum_up(10**6)
                yield checks

    busy = Busy.open(ledger.path)
    assert verify(busy).holds
    assert verify(ledger).rows == 21
    busy.close()


def test_verify_holds_on_postgresql_too(postgres_url: str) -> None:
    ledger = PostgresLedger.open(postgres_url)
    fill(ledger)
    ledger.sum_up(9)
    result = verify(ledger)
    assert (result.faults, result.rows) == ((), 18)
    ledger.sum_up(10**6)
    assert verify(ledger).holds
    with psycopg.connect(postgres_url) as other:
        other.execute("UPDATE spillway.key_sums SET answers = answers + 1 WHERE cost_nano > 0")
        other.execute("UPDATE spillway.balances SET spent_nano = 0 WHERE scope = 'all' AND period = 'month'")
        other.execute("UPDATE spillway.holds SET tier = 'other'")
    assert {fault.rule for fault in verify(ledger).faults} == {"sums", "balances", "open holds"}
    ledger.close()
