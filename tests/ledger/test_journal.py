"""The journal: rows wait while the ledger is away, and are stored once, in order, by whoever lives by then."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger.helpers import WAIT_S, entry

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.journal import NO_HOLD, SPARE_ROWS, Journal, JournalPlace, WaitingRow, recover
from spillway_router.ledger.orphans import close_orphans
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify
from spillway_router.testing.ledger import MemoryLedger


def free(number: int) -> WaitingRow:
    return WaitingRow(
        entry("charged", f"free{number}", local=True, status="ok", gpu_us=number, backend="local"), NO_HOLD
    )


def closing(number: int, bound_nano: int = 100, amount_nano: int = 7) -> WaitingRow:
    row = entry("charged", f"paid{number}", status="ok", amount_nano=amount_nano, tariff_ref="t", router_id="gone")
    return WaitingRow(row, bound_nano)


def hold(number: int, bound_nano: int = 100) -> WaitingRow:
    return WaitingRow(entry("reserved", f"paid{number}", reserved_nano=bound_nano, router_id="gone"), NO_HOLD)


def put(journal: Journal, *rows: WaitingRow) -> None:
    """Add rows and wait until the journal has written them, or found that it can't."""
    written = Event()
    journal.put(rows, written.set)
    assert written.wait(WAIT_S)


def crash(journal: Journal) -> None:
    """Let go of the file as the end of a process does, without the orderly end of `close`."""
    while journal._is_due() or journal._writing_since_s:
        Event().wait(0.001)  # the thread, which a real crash would end, must not use the descriptor any more
    os.close(journal._descriptor)
    journal._descriptor = -1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    opened = SqliteLedger.open(tmp_path / "spillway.db")
    yield opened
    opened.close()


@pytest.fixture
def place(ledger: SqliteLedger) -> JournalPlace:
    return JournalPlace.of(ledger.name, ledger.path, ledger.path.parent)


def test_rows_of_a_router_that_is_gone_are_stored_once_and_in_order(ledger: SqliteLedger, place: JournalPlace) -> None:
    ledger.append((hold(3).entry,))
    journal = Journal(place.file_of("gone"))
    rows = [free(1), free(2), closing(3)]
    put(journal, *rows)
    ledger.append((free(1).entry,))  # its commit was under way
    crash(journal)
    assert recover(ledger, place) == 3
    assert [row.request_id for row in ledger.entries_between(0, 2**62)] == ["paid3", "free1", "free2", "paid3"]
    assert recover(ledger, place) == 0
    assert place.files() == []
    assert verify(ledger).holds


def test_a_charge_that_another_router_made_of_the_bound_is_put_right(ledger: SqliteLedger, place: JournalPlace) -> None:
    ledger.append((hold(1).entry,))
    journal = Journal(place.file_of("gone"))
    put(journal, closing(1))
    crash(journal)
    assert len(close_orphans(ledger, 2**41, 0)) == 1
    recover(ledger, place)
    assert sum(row.amount_nano for row in ledger.entries_of("paid1")) == 7
    assert verify(ledger).holds


def test_the_journal_of_a_router_that_lives_is_left_alone(ledger: SqliteLedger, place: JournalPlace) -> None:
    journal = Journal(place.file_of("alive"))
    put(journal, free(1))
    assert recover(ledger, place) == 0
    assert len(place.files()) == 1
    journal.forget([free(1).entry.key])
    assert journal.close(WAIT_S)
    assert place.files() == []


def test_a_row_cut_off_by_a_crash_is_left_out(ledger: SqliteLedger, place: JournalPlace) -> None:
    journal = Journal(place.file_of("gone"))
    put(journal, free(1), free(2))
    crash(journal)
    with place.file_of("gone").open("ab") as file:
        file.write(b'[-1,"charged","fr')
    assert recover(ledger, place) == 2


def test_a_ledger_that_is_still_away_leaves_the_file(tmp_path: Path, place: JournalPlace) -> None:
    journal = Journal(place.file_of("gone"))
    put(journal, free(1))
    crash(journal)

    class Away(MemoryLedger):
        def commit(self, writes: object) -> list[object]:  # type: ignore[override]
            raise LedgerUnavailableError("away")

    with pytest.raises(LedgerUnavailableError):
        recover(Away(), place)
    assert recover(MemoryLedger(), place) == 1


def test_a_full_journal_loses_free_rows_first_and_counts_them(tmp_path: Path) -> None:
    journal = Journal(most_rows=2)
    put(journal, *(free(number) for number in range(5)))
    assert (len(journal), journal.lost_rows) == (2, 3)
    put(journal, *(closing(number) for number in range(SPARE_ROWS + 1)))
    assert (journal.closing_rows, journal.lost_rows) == (SPARE_ROWS, 4)
    put(journal, closing(0))  # one that waits already takes no room
    assert journal.lost_rows == 4


def test_a_file_that_can_t_be_written_leaves_the_rows_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").touch()
    journal = Journal(tmp_path / "no folder" / "journal")
    put(journal, free(1))
    put(journal, free(2))
    assert [row.entry.request_id for row in journal.first(9)] == ["free1", "free2"]
    assert "File exists" in journal.problem
    assert caplog.text.count("in memory only") == 1
    (tmp_path / "no folder").unlink()
    put(journal, free(3))
    assert journal.problem == ""
    assert (tmp_path / "no folder" / "journal").read_bytes().count(b"\n") == 3
    assert journal.close(WAIT_S)


def test_a_full_disk_leaves_no_torn_row_before_the_next(
    ledger: SqliteLedger, place: JournalPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(place.file_of("gone"))
    put(journal, free(1))
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) - 10])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        put(journal, free(2))
        assert journal.problem == "No space left on device"
    put(journal, free(3))
    crash(journal)
    assert recover(ledger, place) == 3


def test_the_names_of_two_ledgers_differ_and_say_no_password(tmp_path: Path) -> None:
    one = JournalPlace.of("postgresql://db/one", None, tmp_path).file_of("r")
    other = JournalPlace.of("postgresql://db/two", None, tmp_path).file_of("r")
    assert one != other
    assert one.parent == tmp_path


_KILLED = """
import os, sys
from pathlib import Path
from threading import Event
from tests.ledger.test_journal import free, closing, put
from spillway_router.ledger.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(10_000):
    put(journal, free(number) if number % 3 else closing(number))
    os.write(1, b"%d\\n" % number)
"""


@pytest.mark.parametrize("after", [1, 57, 400])
def test_no_row_that_was_written_is_lost_by_a_kill(ledger: SqliteLedger, place: JournalPlace, after: int) -> None:
    for number in range(0, 3000, 3):
        ledger.append((hold(number).entry,))
    command = [sys.executable, "-c", _KILLED, str(place.file_of("gone"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(after)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split()]
    recover(ledger, place)
    for number in acknowledged:
        rows = ledger.entries_of(f"free{number}") or ledger.entries_of(f"paid{number}")
        assert [row.kind for row in rows].count("charged") == 1
    assert verify(ledger).holds


_actions = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 12)),
        st.tuples(st.just("stored"), st.integers(0, 12)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("recover"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(actions=_actions)
def test_whatever_happens_every_row_is_stored_exactly_once(actions: list[tuple[str, int]]) -> None:
    """`stored` is the ledger's late acknowledgement of a row that waits; a crash comes at any point."""
    with TemporaryDirectory() as folder:
        ledger = MemoryLedger()
        place = JournalPlace.of("l", None, Path(folder))
        ledger.append([hold(number).entry for number in range(13)])
        life, journal, given_rows = 0, Journal(place.file_of("0")), set[int]()
        for action, number in actions:
            row = closing(number) if number % 2 else free(number)
            if action == "put":
                put(journal, row)
                given_rows.add(number)
            elif action == "stored" and number in given_rows:
                ledger.append((row.entry,))
                journal.forget([row.entry.key])
            elif action == "crash":
                if journal._descriptor >= 0:
                    crash(journal)
                life += 1
                journal = Journal(place.file_of(str(life)))
            elif action == "recover":
                recover(ledger, place)
        if journal._descriptor >= 0:
            crash(journal)
        recover(ledger, place)
        charged = [row for row in ledger.entries_between(0, 2**62) if row.kind == "charged"]
        assert len(charged) == len(given_rows)
        assert ledger.balance("all", "day", 0).spent_nano == 0
        assert sum(row.amount_nano for row in charged) == 7 * sum(number % 2 for number in given_rows)
        assert place.files() == []


def test_a_journal_is_locked_while_its_router_lives(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    put(journal, free(1))
    with (tmp_path / "j").open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    journal.forget([free(1).entry.key])
    assert journal.close(WAIT_S)
