"""Power cuts: a disk that forgets unsynced writes, under the ledger's own way of committing.

A shim between SQLite and the real files (apsw.VFS) writes through, and remembers for each file what every write since
its last sync replaced. At a random write, sync or truncation the power fails: nothing more reaches the disk, and all
unsynced writes, or a random part of them, are undone, as a disk may store them in any order. Then the database is
opened as usual, and every row whose commit had returned must be there.

SQLite's WAL needs shared memory, which such a shim can't provide unless one connection has the file to itself. So the
ledger's `EntryStore` commits through one connection in exclusive locking mode; all other settings are the same.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from spillway_router.ledger.entries import Entry, Kind
from spillway_router.ledger.records import Write
from spillway_router.ledger.store.sqlite.entries import EntryStore
from spillway_router.ledger.store.sqlite.file import configure
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
from spillway_router.ledger.verify import verify

VFS = "powercut"
T0 = 1_790_000_000_000
MOST_OPERATIONS = 3_000
"""A cut comes within so many writes and syncs; with about ten pages per commit they include checkpoints of the WAL."""


@dataclass(frozen=True, slots=True)
class PowercutOutcome:
    """The outcome of all cuts: acknowledged rows, how many of them are missing or duplicated, and faults that `verify`
    finds.

    `writes_undone` shows that the disk did forget something.
    """

    cuts: int
    acknowledged: int
    lost: int
    doubled: int
    faults: int
    writes_undone: int


@dataclass(slots=True)
class _Change:
    """One write or truncation: its offset, the bytes that it replaced, the bytes that it wrote, and the file's length
    before.
    """

    offset: int
    old: bytes
    new: bytes | None
    length: int


@dataclass(slots=True)
class Disk:
    """What is not synced, per file, and how many operations are left until the power fails."""

    left: int
    random_: random.Random
    changes: dict[str, list[_Change]] = field(default_factory=dict)

    def step(self) -> None:
        """Count one operation.

        Raises:
            apsw.IOError: the power has failed.
        """
        self.left -= 1
        if self.left < 0:
            raise apsw.IOError("the power is gone")

    def undo(self) -> int:
        """Bring the files to the state that the disk kept; return how many writes it forgot."""
        kept_share = self.random_.choice([0.0, 0.5, 0.9])
        undone = 0
        for name, changes in self.changes.items():
            with open(name, "r+b") as file:
                for change in reversed(changes):
                    file.seek(change.offset)
                    file.write(change.old)
                    file.truncate(change.length)
                for change in changes:
                    if self.random_.random() >= kept_share:
                        undone += 1
                    elif change.new is None:
                        file.truncate(change.offset)
                    else:
                        file.seek(change.offset)
                        file.write(change.new)
        return undone


class PowercutVFS(apsw.VFS):
    """The shim. Creating it registers it; `unregister` removes it."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(VFS, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        # A file without a name is a scratch file of SQLite that does not outlive the process.
        return apsw.VFSFile("", name, flags) if name is None else _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        self._disk.step()
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename, flags: list[int]) -> None:
        self._disk = disk
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else name
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.step()
        self._remember(offset, len(data), bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.step()
        self._remember(newsize, max(0, self.xFileSize() - newsize), None)
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.step()
        self._disk.changes.pop(self._name, None)

    def _remember(self, offset: int, length: int, new: bytes | None) -> None:
        size = self.xFileSize()
        there = max(0, min(length, size - offset))
        old = super().xRead(there, offset) if there else b""
        self._disk.changes.setdefault(self._name, []).append(_Change(offset, old, new, size))


def powercut_trials(path: Path, cuts: int, seed: int, *, synchronous: str = "FULL") -> PowercutOutcome:
    """Cut the power of one database `cuts` times. `synchronous` NORMAL is a seeded fault: it loses
    acknowledged rows.
    """
    random_ = random.Random(seed)
    SqliteLedger.open(path).close()
    acknowledged: set[str] = set()
    undone = 0
    for cut in range(cuts):
        disk = Disk(random_.randrange(1, MOST_OPERATIONS), random_)
        acknowledged |= _until_the_cut(path, disk, f"c{cut}", synchronous)
        undone += disk.undo()
        SqliteLedger.open(path).close()  # opening recovers the database, as the next start would
    ledger = SqliteLedger.open(path)
    stored = Counter(row.request_id + row.kind for row in ledger.entries_between(0, 2**62))
    faults = verify(ledger).fault_count
    ledger.close()
    lost = sum(1 for row in acknowledged if not stored[row])
    return PowercutOutcome(
        cuts=cuts,
        acknowledged=len(acknowledged),
        lost=lost,
        doubled=sum(n > 1 for n in stored.values()),
        faults=faults,
        writes_undone=undone,
    )


def _until_the_cut(path: Path, disk: Disk, name: str, synchronous: str) -> set[str]:
    vfs = PowercutVFS(disk)
    acknowledged: set[str] = set()
    connection = None
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=VFS)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        configure(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        store = EntryStore(connection)
        for batch in range(MOST_OPERATIONS):
            writes = _writes(f"{name}-{batch}", disk.random_)
            store.commit(writes)
            acknowledged |= {row.request_id + row.kind for write in writes for row in write.entries}
    except apsw.Error:
        if disk.left >= 0:
            raise
    finally:
        if connection is not None:
            with contextlib.suppress(apsw.Error):
                connection.close()
        vfs.unregister()
    return acknowledged


def _writes(name: str, random_: random.Random) -> list[Write]:
    """Return a commit of some requests: local answers, and paid calls with their hold."""
    writes = []
    for number in range(random_.randrange(1, 24)):
        request_id = f"{name}-{number}"
        if number % 3:
            writes.append(Write((_entry("charged", request_id, ts=T0 + number, local=True),)))
        else:
            writes.append(Write((_entry("reserved", request_id, reserved_nano=9),)))
            writes.append(Write((_entry("charged", request_id, amount_nano=random_.randrange(9)),)))
    return writes


def _entry(kind: Kind, request_id: str, *, ts: int = T0, **fields: Any) -> Entry:
    attempt = {"backend": "groq", "provider": "groq", "model": "m", "key_id": "k1", "tier": "free", **fields}
    return Entry(kind=kind, request_id=request_id, attempt_no=1, ts=ts, **attempt)
