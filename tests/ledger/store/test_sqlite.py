"""SQLite: the contract, and what is particular to a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

import apsw
import pytest
from evidence.durability import kill9_child
from evidence.durability.kill9 import kill9_trials
from evidence.durability.powercut import powercut_trials
from tests.ledger.contract import LedgerContract
from tests.ledger.helpers import T0, entry, requests_in

from spillway_router.ledger.entries import Kind
from spillway_router.ledger.errors import LedgerConfigError, LedgerUnavailableError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.store.migrations import Migration, load_migrations
from spillway_router.ledger.store.open import open_ledger
from spillway_router.ledger.store.sqlite import migrations
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spillway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(path)
    yield opened
    opened.close()


@pytest.fixture
def reopen(path: Path) -> Iterator[Callable[[], Ledger]]:
    opened: list[SqliteLedger] = []

    def again() -> SqliteLedger:
        opened.append(SqliteLedger.open(path))
        return opened[-1]

    yield again
    for each in opened:
        each.close()


class TestSqlite(LedgerContract):
    """The contract on SQLite."""


def test_the_file_is_for_this_user_only(ledger: SqliteLedger, path: Path) -> None:
    ledger.append((entry("charged", "r1"),))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {path.name: 0o600, path.name + "-wal": 0o600, path.name + "-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o644)
    SqliteLedger.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commits_are_synced(ledger: SqliteLedger) -> None:
    assert ledger._writer.pragma("journal_mode") == "wal"
    assert ledger._writer.pragma("synchronous") == 2  # FULL


def test_a_place_that_cant_be_written_says_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LedgerConfigError, match=r"make .* writable .* ledger\.url"):
        SqliteLedger.open(tmp_path / "file" / "spillway.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_says_what_to_change(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(0o500)
    with pytest.raises(LedgerConfigError, match="writable"):
        SqliteLedger.open(folder / "spillway.db")


def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is not a database, it is a text file" * 100)
    with pytest.raises(LedgerUnavailableError, match="can't be opened"):
        SqliteLedger.open(path)


def test_rows_can_be_neither_changed_nor_deleted(ledger: SqliteLedger, path: Path) -> None:
    ledger.append((entry("charged", "r1", amount_nano=5),))
    other = apsw.Connection(str(path))
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        other.execute("UPDATE entries SET amount_nano = 0")
    with pytest.raises(apsw.ConstraintError, match="append-only"):
        other.execute("DELETE FROM entries")
    other.close()


def test_only_rows_of_a_known_kind_are_stored_and_none_costs_an_index_of_the_kinds(
    ledger: SqliteLedger, path: Path
) -> None:
    ledger.append((entry("charged", "r1", amount_nano=5),))
    other = apsw.Connection(str(path))
    columns = [row[1] for row in other.execute("PRAGMA table_info(entries)") if row[1] != "seq"]
    stored = other.execute(f"SELECT {','.join(columns)} FROM entries").fetchall()[0]
    insert = f"INSERT INTO entries ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
    place = columns.index("kind")
    for number, kind in enumerate(get_args(Kind)):
        other.execute(insert, (*stored[:place], kind, f"s{number}", *stored[place + 2 :]))
    with pytest.raises(apsw.ConstraintError, match="CHECK"):
        other.execute(insert, (*stored[:place], "gift", "s9", *stored[place + 2 :]))
    steps = [row[1] for row in other.execute(f"EXPLAIN {insert}", stored)]
    assert "Insert" in steps
    assert "OpenEphemeral" not in steps
    other.close()


def test_migrations_run_once_in_order_and_all_or_nothing(path: Path) -> None:
    SqliteLedger.open(path).close()
    shipped = load_migrations(migrations.__name__)
    assert [m.number for m in shipped] == list(range(1, len(shipped) + 1))
    extra = Migration(9001, "extra", "CREATE TABLE extra (x)")
    broken = Migration(9002, "broken", "CREATE TABLE half (x); CREATE TABLE extra (x)")
    with pytest.raises(LedgerUnavailableError, match="extra already exists"):
        SqliteLedger.open(path, (*shipped, extra, broken))
    SqliteLedger.open(path, (*shipped, extra)).close()
    SqliteLedger.open(path, (*shipped, extra)).close()
    with pytest.raises(LedgerConfigError, match="newer Spillway"):
        SqliteLedger.open(path)


def test_a_closed_ledger_says_so(ledger: SqliteLedger) -> None:
    ledger.close()
    with pytest.raises(LedgerUnavailableError):
        ledger.append((entry("charged", "r1"),))


def test_urls(tmp_path: Path) -> None:
    open_ledger(f"sqlite:///{tmp_path}/a.db").close()
    assert (tmp_path / "a.db").exists()
    for bad in ("sqlite://", "sqlite:///", "mysql://user:hunter2@host/db", "data/spillway.db", ""):
        with pytest.raises(LedgerConfigError, match=r"ledger\.url") as raised:
            open_ledger(bad)
        assert "hunter2" not in str(raised.value)


def test_every_acknowledged_row_survives_kill_9(tmp_path: Path) -> None:
    outcome = kill9_trials(tmp_path / "spillway.db", trials=20, seed=1)
    assert outcome.acknowledged > 100
    assert outcome.orphans > 0
    assert (outcome.lost, outcome.doubled, outcome.faults, outcome.leaked) == (0, 0, 0, 0)


def test_the_kill_test_finds_a_writer_that_acknowledges_too_early(tmp_path: Path) -> None:
    assert kill9_trials(tmp_path / "spillway.db", trials=5, seed=1, fault=True).lost > 0


def test_every_acknowledged_row_survives_power_cuts(tmp_path: Path) -> None:
    outcome = powercut_trials(tmp_path / "spillway.db", cuts=10, seed=1)
    assert outcome.acknowledged > 1000
    assert outcome.writes_undone > 0
    assert (outcome.lost, outcome.doubled, outcome.faults) == (0, 0, 0)


def test_power_cuts_find_a_database_that_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    assert powercut_trials(tmp_path / "spillway.db", cuts=5, seed=1, synchronous="NORMAL").lost > 0


def test_a_full_disk_stores_nothing_and_recovers(ledger: SqliteLedger) -> None:
    ledger._writer.pragma("max_page_count", ledger._writer.pragma("page_count") + 2)
    big = [entry("charged", f"r{i}", reasons="x" * 1000) for i in range(200)]
    for part in (big, big[:60]):  # several statements, and a single one
        with pytest.raises(LedgerUnavailableError, match="full"):
            ledger.append(part)
    assert requests_in(ledger, 0, T0 * 2) == 0
    ledger._writer.pragma("max_page_count", 10**6)
    ledger.probe()
    ledger.append(big)
    assert requests_in(ledger, 0, T0 * 2) == 200


def test_two_processes_write_at_once(path: Path) -> None:
    requests = 200
    context = get_context("forkserver")
    context.set_forkserver_preload([kill9_child.__name__])
    receiving, sending = context.Pipe(duplex=False)
    children = [
        context.Process(target=kill9_child.write, args=(f"sqlite:///{path}", name, requests, sending))
        for name in ("a", "b")
    ]
    for child in children:
        child.start()
    sending.close()
    with os.fdopen(os.dup(receiving.fileno()), "r") as lines:
        acknowledged = lines.read().splitlines()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    ledger = SqliteLedger.open(path)
    stored = [f"{row.request_id} {row.kind}" for row in ledger.entries_between(0, T0 * 2)]
    assert sorted(stored) == sorted(acknowledged)
    assert len(stored) == 2 * (requests + requests // 2)
    assert verify(ledger).holds
    ledger.close()


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the locks of a file are told by Linux only")
def test_another_opening_in_one_process_leaves_the_locks(ledger: SqliteLedger, path: Path) -> None:
    """Without its lock another process may take itself for the last one that has the file open."""
    ledger.append((entry("charged", "r1"),))
    assert locks_of(path)
    SqliteLedger.open(path).close()
    assert locks_of(path)


def locks_of(path: Path) -> list[str]:
    inode = path.stat().st_ino
    return [line for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line]


def test_a_report_keeps_no_pages_in_memory(ledger: SqliteLedger) -> None:
    ledger.append([entry("charged", f"r{i}", reasons="x" * 100) for i in range(5000)])
    connection = ledger._sums_reader[0]

    def kept() -> int:
        return connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)[0]

    before = kept()
    assert ledger.totals(0, 2 * T0)
    assert kept() <= before + 32 * 1024
