"""The journal: rows that wait while the ledger is away, in memory and in a file of this router's own.

A ledger is away when it refuses a write, and also when it doesn't answer: another process holds its lock, its disk is
frozen, its server is stopped. The rows of finished attempts are put here then, and the writer stores them when the
ledger is back, in the order in which they came. A row has an identity, so storing it again is harmless, and the file
may contain rows that the ledger has already.

    put       adds rows; a thread appends them to the file, synced to the disk              (event loop)
    forget    removes rows that the ledger has; the file is emptied once none are left      (event loop)
    recover   stores what routers left behind that ended before the ledger was back         (start of a router)

The file may be on the disk that hangs, so nobody but that thread waits for it; while it can't be written, the rows are
in memory only. The file is locked by its router as long as that lives, so several routers may share a ledger. The
journal is bounded: above `most_rows` the row of a free attempt is lost, and counted. `SPARE_ROWS` more are kept for
rows that end a hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Condition, Thread
from typing import NamedTuple

import orjson

from spillway_router.ledger.entries import Entry, entry_of, row_of
from spillway_router.ledger.errors import EntryConflictError, LedgerError
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.orphans import corrected
from spillway_router.ledger.records import Write

MOST_ROWS = 50_000
"""About 50 MB of memory and 25 MB of disk."""
SPARE_ROWS = 10_000
MOST_BYTES = 64 << 20
"""The file's limit: rows that were forgotten stay in it until no row waits."""
RECOVERED_AT_ONCE = 256
RETRY_S = 1.0
"""The pause after the file could not be written."""
STUCK_S = 0.02
NO_HOLD = -1
"""The `bound_nano` of a row that ends no hold."""

EntryKey = tuple[str, int, str]
OnFailure = Callable[[LedgerError], None]
OnWritten = Callable[[], None]

log = logging.getLogger("spillway")


class WaitingRow(NamedTuple):
    """A row that waits: it ends a hold of `bound_nano` nano-dollars, or none (NO_HOLD).

    `on_failure` is called on the loop if the ledger refuses the row for good.
    """

    entry: Entry
    bound_nano: int
    on_failure: OnFailure | None = None


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """Where the journals of a ledger are: files in `folder` whose names begin with `prefix`."""

    folder: Path
    prefix: str

    @classmethod
    def of(cls, ledger_name: str, file: Path | None, folder: Path | None) -> JournalPlace:
        """Return the place for a ledger with this name and file, None without one.

        The folder defaults to that of the file, and the names of the journals tell ledgers in one folder apart.
        """
        prefix = "ledger" if file is None else file.name
        name = hashlib.sha256(ledger_name.encode()).hexdigest()[:12]
        if folder is None:
            folder = Path() if file is None else file.parent
        return cls(folder, f"{prefix}.waiting-{name}-")

    def file_of(self, router_id: str) -> Path:
        """Return the journal of one router."""
        return self.folder / f"{self.prefix}{router_id}"

    @property
    def clock_file(self) -> Path:
        """The file in which the routers of a machine note their clock."""
        return self.folder / f"{self.prefix.replace('.waiting-', '.clock-').rstrip('-')}"

    def files(self) -> list[Path]:
        """Return the journals that exist, oldest first."""
        try:
            paths = [path for path in self.folder.iterdir() if path.name.startswith(self.prefix)]
            return sorted(paths, key=lambda path: path.stat().st_mtime_ns)
        except OSError:
            return []


class Journal:
    """The waiting rows of one router. `file` None keeps them in memory only. Methods may be called from any thread."""

    def __init__(self, file: Path | None = None, most_rows: int = MOST_ROWS) -> None:
        self._file = file
        self._most_rows = most_rows
        self._waiting: dict[EntryKey, WaitingRow] = {}
        self._unwritten: dict[EntryKey, WaitingRow] = {}
        self._on_written: list[OnWritten] = []
        self._changed = Condition()
        self._writing_since_s = 0.0
        """When the present write began (monotonic), 0 between writes."""
        self._closing = False
        self._descriptor = -1
        self._size = 0
        self._problem = ""
        self._thread: Thread | None = None
        self.lost_rows = 0
        """Rows that found no place."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def closing_rows(self) -> int:
        """How many of the waiting rows end a hold."""
        return sum(1 for row in list(self._waiting.values()) if row.bound_nano != NO_HOLD)

    @property
    def is_stuck(self) -> bool:
        """Whether the file's disk doesn't answer, so that nobody should wait for it."""
        began_s = self._writing_since_s
        return began_s > 0 and time.monotonic() - began_s > STUCK_S

    @property
    def problem(self) -> str:
        """Why the rows are in memory only; empty if they are not."""
        return self._problem

    def put(self, rows: Sequence[WaitingRow], on_written: OnWritten) -> None:
        """Add rows. `on_written` is called once they are on the disk or can't be written, from any thread."""
        with self._changed:
            for row in rows:
                key = row.entry.key
                spare = SPARE_ROWS if row.bound_nano != NO_HOLD else 0
                if key not in self._waiting and len(self._waiting) >= self._most_rows + spare:
                    self.lost_rows += 1
                    continue
                self._waiting[key] = row
                self._unwritten[key] = row
            if self._file is not None and not self._closing:
                self._on_written.append(on_written)
                self._begin()
                return
        on_written()

    def forget(self, keys: Iterable[EntryKey]) -> None:
        """Remove rows that the ledger has, or has refused for good."""
        with self._changed:
            for key in keys:
                self._waiting.pop(key, None)
                self._unwritten.pop(key, None)
            if not self._waiting:
                self._changed.notify()

    def drop(self, key: EntryKey, reason: str) -> None:
        """Give a row up that can't be stored."""
        log.error("a waiting row of %s is lost: %s", key[0], reason)
        self.lost_rows += 1
        self.forget((key,))

    def first(self, most: int) -> list[WaitingRow]:
        """Return the rows that have waited longest; they stay."""
        with self._changed:
            return list(islice(self._waiting.values(), most))

    def close(self, timeout_s: float) -> bool:
        """Write what still waits, and stop; without waiting rows, remove the file. Return False after the timeout."""
        with self._changed:
            self._closing = True
            if self._file is not None and self._waiting:
                self._begin()
            self._changed.notify()
        if self._thread is None:
            return not self._waiting
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._unwritten

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="ledger-journal", daemon=True)
            self._thread.start()
        self._changed.notify()

    # The thread's side. Only the thread touches the file.

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                while not (self._closing or self._is_due()):
                    self._changed.wait(RETRY_S if self._problem and self._unwritten else None)
                    if self._problem and self._unwritten:
                        break
                closing = self._closing
                rows = list(self._unwritten.values())
                callbacks, self._on_written = self._on_written, []
                empty = not self._waiting
                self._writing_since_s = time.monotonic()
            self._note(self._write(rows, empty=empty))
            with self._changed:
                if not self._problem:
                    for row in rows:
                        if self._unwritten.get(row.entry.key) is row:
                            del self._unwritten[row.entry.key]
                self._writing_since_s = 0.0
            for on_written in callbacks:
                on_written()
        self._end()

    def _is_due(self) -> bool:
        if self._on_written:
            return True
        return bool(self._unwritten) and not self._problem if self._waiting else self._size > 0

    def _write(self, rows: Sequence[WaitingRow], *, empty: bool) -> str:
        """Append rows, or empty the file; return what went wrong."""
        try:
            if empty:
                if self._descriptor >= 0:
                    os.ftruncate(self._descriptor, 0)
                self._size = 0
            elif rows:
                self._append(b"".join(map(_line_of, rows)))
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _append(self, data: bytes) -> None:
        if self._size + len(data) > MOST_BYTES:
            raise OSError(0, f"it has reached {MOST_BYTES >> 20} MiB")
        if self._descriptor < 0:
            self._descriptor = _open(self._file)
            self._size = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fdatasync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)  # no torn row may stand before the next one
            raise
        self._size += len(data)

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            log.warning("the journal %s can't be written (%s): waiting rows are in memory only", self._file, problem)
        self._problem = problem

    def _end(self) -> None:
        if self._descriptor < 0:
            return
        with contextlib.suppress(OSError):
            if not self._waiting and self._file is not None:
                self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
        self._descriptor = -1


def recover(ledger: Ledger, place: JournalPlace) -> int:
    """Store the rows that routers left behind which no longer run, and remove their files; return how many rows.

    A row that another router has charged at its bound meanwhile corrects that charge. Raises LedgerUnavailableError;
    what is not stored then stays in its file.
    """
    rows = 0
    for path in place.files():
        with _abandoned(path) as descriptor:
            if descriptor is None:
                continue
            waiting = list(_rows_in(path, descriptor))
            for at in range(0, len(waiting), RECOVERED_AT_ONCE):
                _store(ledger, waiting[at : at + RECOVERED_AT_ONCE])
            rows += len(waiting)
            path.unlink(missing_ok=True)
    return rows


def _store(ledger: Ledger, rows: Sequence[WaitingRow]) -> None:
    results = ledger.commit([Write((row.entry,)) for row in rows])
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, EntryConflictError) and row.bound_nano != NO_HOLD and row.entry.kind != "adjusted":
            result = ledger.commit([Write((corrected(row.entry, row.bound_nano),))])[0]
        if isinstance(result, LedgerError):
            log.error("a waiting row of %s was not stored: %s", row.entry.request_id, result)


@contextlib.contextmanager
def _abandoned(path: Path) -> Iterator[int | None]:
    """Lock a journal whose router is gone; None if its router lives, or it can't be read."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        log.warning("the journal %s can't be read: %s", path, error.strerror)
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)


def _open(file: Path | None) -> int:
    assert file is not None, "a journal without a file is not written"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _line_of(row: WaitingRow) -> bytes:
    return orjson.dumps((row.bound_nano, *row_of(row.entry))) + b"\n"


def _rows_in(path: Path, descriptor: int) -> Iterator[WaitingRow]:
    """Yield the rows of a journal. A line that is no row was cut off by a crash, and is left out."""
    with os.fdopen(os.dup(descriptor), "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                bound_nano, *row = orjson.loads(line)
                yield WaitingRow(entry_of(tuple(row)), int(bound_nano))
            except (ValueError, TypeError, IndexError):
                log.warning("line %d of the journal %s is no row and was left out", number, path)
