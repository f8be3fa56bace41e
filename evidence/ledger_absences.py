"""Ways in which a real ledger doesn't answer: its lock is held, its disk is frozen or full, PostgreSQL is stopped.

The frozen disk is an ext4 file system in a file, which `fsfreeze` stops as a snapshot does: every write to it waits
until it goes on. That needs root and a loop device.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from spillway_router.testing.postgres_server import postgres_server

DISK_MB = 48


class CannotMountError(Exception):
    """This machine can't make a file system of its own for a measurement; the message says why."""


@dataclass(frozen=True, slots=True)
class LedgerUnderTest:
    """A ledger's URL, the folder of the journal, and what takes the ledger away for as long as a block runs."""

    url: str
    journal: Path | None
    away: Callable[[], AbstractContextManager[None]]


@contextmanager
def locked(folder: Path) -> Iterator[LedgerUnderTest]:
    """A SQLite file whose write lock another connection takes."""
    file = folder / "locked.db"

    @contextmanager
    def away() -> Iterator[None]:
        with contextlib.closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    yield LedgerUnderTest(f"sqlite:///{file}", None, away)


@contextmanager
def frozen(folder: Path) -> Iterator[LedgerUnderTest]:
    """A SQLite file, and the journal beside it, on a disk that freezes."""
    with _disk(folder, "frozen") as disk:

        @contextmanager
        def away() -> Iterator[None]:
            _run("fsfreeze", "--freeze", str(disk))
            try:
                yield
            finally:
                _run("fsfreeze", "--unfreeze", str(disk))

        yield LedgerUnderTest(f"sqlite:///{disk / 'l.db'}", None, away)


@contextmanager
def full(folder: Path) -> Iterator[LedgerUnderTest]:
    """A SQLite file, and the journal beside it, on a disk that fills up."""
    with _disk(folder, "full") as disk:

        @contextmanager
        def away() -> Iterator[None]:
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                for size in (1 << 20, 1 << 12, 1):
                    with contextlib.suppress(OSError):
                        while True:
                            file.write(bytes(size))
            try:
                yield
            finally:
                filler.unlink()

        yield LedgerUnderTest(f"sqlite:///{disk / 'l.db'}", None, away)


@contextmanager
def stopped(folder: Path) -> Iterator[LedgerUnderTest]:
    """A PostgreSQL server whose processes are all stopped by SIGSTOP."""
    journal = folder / "journal"
    journal.mkdir()
    with postgres_server() as server:

        @contextmanager
        def away() -> Iterator[None]:
            main = psutil.Process(server.pid)
            processes = [main, *main.children(recursive=True)]
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGSTOP)
            try:
                yield
            finally:
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGCONT)

        yield LedgerUnderTest(server.new_database(), journal, away)


ABSENCES: dict[str, Callable[[Path], AbstractContextManager[LedgerUnderTest]]] = {
    "lock held": locked,
    "disk frozen": frozen,
    "PostgreSQL stopped": stopped,
    "disk full": full,
}
HANGS = ("lock held", "disk frozen", "PostgreSQL stopped")


@contextmanager
def _disk(folder: Path, name: str) -> Iterator[Path]:
    image, place = folder / f"{name}.img", folder / name
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        raise CannotMountError("it needs root and mkfs.ext4")
    with image.open("wb") as file:
        file.truncate(DISK_MB << 20)
    place.mkdir()
    _run("mkfs.ext4", "-q", "-F", str(image))
    _run("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        _run("umount", str(place))


def _run(*command: str) -> None:
    """Run a command. Raises CannotMountError with what it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMountError(f"{command[0]}: {done.stderr.strip()}")
