"""Backup and restore of a SQLite ledger, and copies of the file that lack its newest rows."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger.helpers import T0, entry

from spillway_router.ledger.errors import LedgerConfigError
from spillway_router.ledger.orphans import SILENT_MS
from spillway_router.ledger.store.sqlite.backup import back_up, restore
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.ledger.verify import verify

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "spillway.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqliteLedger]:
    """The ledger of a router that runs."""
    opened = SqliteLedger.open(path)
    opened.alive("me", T0)
    opened.append([entry("charged", f"r{number}", amount_nano=5) for number in range(51)])
    KeyStore(opened.keys).create(KeySpec("ann"), b"ann123", bytes(32), T0)
    yield opened
    opened.close()


def rows_of(path: Path) -> tuple[int, str, list[str]]:
    """Return the number of rows, the notice and the rules that don't hold."""
    ledger = SqliteLedger.open_to_read(path)
    verification = verify(ledger)
    result = (verification.rows, ledger.notice, [fault.rule for fault in verification.faults])
    ledger.close()
    return result


def test_a_copy_of_the_file_alone_is_noticed(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    rows, notice, rules = rows_of(copy)
    assert rows == 0
    assert "copy.db-wal" in notice
    assert rules == ["copy"]
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    assert rows_of(copy) == (51, "", [])


def test_a_ledger_is_no_copy_while_it_runs_after_a_stop_and_after_a_crash(
    ledger: SqliteLedger, path: Path, tmp_path: Path
) -> None:
    assert rows_of(path) == (51, "", [])
    crashed = tmp_path / "crashed.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    SqliteLedger.open(crashed).close()  # any command that writes moves the WAL into the file
    assert not Path(f"{crashed}-wal").exists()
    assert rows_of(crashed) == (51, "", [])
    ledger.close()
    assert rows_of(path) == (51, "", [])


def test_the_first_of_two_routers_that_stops_leaves_the_mark(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    other = SqliteLedger.open(path)
    other.alive("other", T0)
    other.close()
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    assert rows_of(copy)[2] == ["copy"]


def test_a_backup_is_the_whole_ledger_in_one_private_file(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    back_up(path, file)
    assert rows_of(file) == (51, "", [])
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("backup")] == ["backup.db"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    copy = SqliteLedger.open_to_read(file)
    assert copy.keys.all() == ledger.keys.all()
    assert list(copy.chain())[-1] == list(ledger.chain())[-1]
    copy.close()
    with pytest.raises(LedgerConfigError, match="exists"):
        back_up(path, file)


def test_a_backup_of_nothing_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerConfigError, match="no ledger"):
        back_up(path, tmp_path / "backup.db")
    assert not (tmp_path / "backup.db").exists()


def test_a_restored_ledger_replaces_the_other_and_keeps_it(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    back_up(path, file)
    ledger.append((entry("charged", "later", amount_nano=5),))
    with pytest.raises(LedgerConfigError, match="stop it"):
        restore(file, path, T0 + SILENT_MS - 1)
    ledger.close()
    before = restore(file, path, T0 + SILENT_MS)
    assert before is not None
    assert (rows_of(path), rows_of(before)) == ((51, "", []), (52, "", []))
    again = SqliteLedger.open(path)
    again.append((entry("charged", "new", amount_nano=5),))
    assert verify(again).holds
    again.close()


def test_a_restore_where_nothing_was_makes_the_folder(ledger: SqliteLedger, path: Path, tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "backup.db", tmp_path / "new" / "place.db"
    back_up(path, file)
    assert restore(file, elsewhere, T0) is None
    assert rows_of(elsewhere) == (51, "", [])


@pytest.mark.parametrize("damage", [b"", b"no database" * 500, None])
def test_a_damaged_ledger_can_be_replaced_and_is_kept(
    damage: bytes | None, ledger: SqliteLedger, path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    back_up(path, file)
    ledger.close()
    damaged = path.read_bytes()[:6_000] if damage is None else damage
    path.write_bytes(damaged)
    before = restore(file, path, T0 + SILENT_MS)
    assert before is not None
    assert rows_of(path) == (51, "", [])
    assert damage == b"" or before.read_bytes() == damaged


def test_backups_and_restores_may_be_killed_at_any_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ledger.store.killed_copies", tmp_path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    ends = set(run.stdout.splitlines())
    assert ends == {"backup none", "backup whole", "restore 4", "restore refused", "restore 3"}
