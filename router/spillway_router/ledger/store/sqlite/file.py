"""The ledger's SQLite file: private to this user, opened in WAL mode with synchronous=FULL, its schema up to date.

With synchronous=FULL a commit is on disk when it returns; with NORMAL a power cut can lose acknowledged rows.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import apsw

from spillway_router.ledger.errors import (
    EntryRejectedError,
    LedgerConfigError,
    LedgerOutdatedError,
    LedgerUnavailableError,
    no_ledger,
)
from spillway_router.ledger.store.migrations import Migration, begins_acts, missing
from spillway_router.ledger.store.sql import note_existing

BUSY_TIMEOUT_MS = 5_000
REFUSED = (apsw.ConstraintError, apsw.TooBigError, OverflowError, UnicodeEncodeError, TypeError)
"""The exceptions that the database and its bindings raise for a value that can't be stored."""


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn database errors into ledger errors, in this one place: EntryRejectedError and LedgerUnavailableError."""
    try:
        yield
    except REFUSED as error:
        raise EntryRejectedError(f"the ledger refused an entry: {error}") from error
    except apsw.Error as error:
        raise unavailable(path, error) from error


def unavailable(path: Path, error: apsw.Error) -> LedgerUnavailableError:
    """Return the ledger's error for an error of the database."""
    return LedgerUnavailableError(f"the ledger {path} can't be used now: {error}")


@contextlib.contextmanager
def snapshot(connection: apsw.Connection) -> Iterator[None]:
    """Read the database as it is at one moment, while others may continue to write. Raises apsw.Error."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def release_memory(connection: apsw.Connection) -> None:
    """Free the pages that a connection keeps in memory after it has read much. Where others write, they would be read
    anew the next time anyway."""
    with contextlib.suppress(apsw.Error):  # a database that can't be used
        connection.execute("PRAGMA shrink_memory")


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Iterator[None]:
    """Run a write transaction: commit it at the end, and roll it back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # After some errors (a full disk) SQLite has rolled back already; a second error here would hide the first.
        if connection.in_transaction:
            with contextlib.suppress(apsw.Error):
                connection.execute("ROLLBACK")
        raise


def prepare_file(path: Path) -> None:
    """Create the folder and the file for this user only. Raises LedgerConfigError saying what to change.

    A file that exists is not opened: closing it again would end the locks of all connections that this process has to
    it (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    check_restored(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _create(path)
    except OSError as error:
        raise LedgerConfigError(
            f"the ledger needs a folder it can write: {path} ({error.strerror}); make {path.parent} writable "
            "for this user or set ledger.url to another place, such as sqlite:///data/spillway.db"
        ) from error
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        with contextlib.suppress(PermissionError):  # the file belongs to another user, but we may write it
            path.chmod(0o600)
    # SQLite creates its -wal and -shm files next to the database.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise LedgerConfigError(f"the folder of the ledger can't be written; make {path.parent} writable")


def _create(path: Path) -> None:
    """Create the file if it is missing. Raises OSError if it can't be written."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    elif not path.is_file():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    elif not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def restoring_of(path: Path) -> Path:
    """Return the name of a copy that is about to become the ledger at `path`."""
    return path.with_name(f"{path.name}.restoring")


def check_restored(path: Path) -> None:
    """Raise LedgerConfigError where a restore was killed before the ledger had its name: a new and empty ledger would
    hand out every budget again."""
    if not path.exists() and restoring_of(path).exists():
        raise LedgerConfigError(
            f"a restore of the ledger {path} was interrupted; run `spillway ledger restore FILE` again. The ledger "
            f"before it, if there was one, is beside it as {path.name}.before-restore-DATE"
        )


def wal_of(path: Path) -> Path:
    """Return the file beside a database that contains its newest rows while it is open."""
    return path.with_name(f"{path.name}-wal")


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Which files on the disk a connection has open: device and inode of the database and of its WAL.

    SQLite goes on with files that were deleted, and every row that it stores in them is lost.
    """

    path: str
    wal: str
    files: tuple[tuple[int, int] | None, ...]

    @classmethod
    def of(cls, path: Path) -> FilePlace:
        """Return the place of a database that is open. Raises OSError."""
        database, wal = str(path), str(wal_of(path))
        return cls(database, wal, (_identity(database), _identity(wal)))

    def check(self) -> None:
        """Raise LedgerUnavailableError if the files are no longer there, or are others."""
        try:
            now = (_identity(self.path), _identity(self.wal))
        except OSError as error:
            raise LedgerUnavailableError(f"the ledger {self.path} can't be reached: {error.strerror}") from error
        if now == self.files:  # asked of every commit
            return
        if any(before is not None and after != before for before, after in zip(self.files, now, strict=True)):
            raise LedgerUnavailableError(
                f"the ledger {self.path} was deleted or replaced while this router had it open; put the files back, or "
                "restart the router, which opens what is there or begins a new ledger"
            )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino)


def has_mark(connection: apsw.Connection) -> bool:
    """Return whether the ledger has the mark `in_use`; that of an older version has none. Raises apsw.Error."""
    return bool(connection.execute("SELECT 1 FROM pragma_table_info('marks') WHERE name = 'in_use'").fetchall())


def check_place(path: Path) -> None:
    """Raise LedgerConfigError if no ledger could be made at a path, without making one."""
    check_restored(path)
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    if not folder.is_dir() or not _is_writable(folder):
        raise LedgerConfigError(
            f"the ledger needs a folder it can write: {path}; make {folder} writable for this user or set ledger.url "
            "to another place, such as sqlite:///data/spillway.db"
        )


def _is_writable(folder: Path) -> bool:
    """Return whether files can be made in a folder. Rights alone don't say: /proc gives them and takes no file."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    try:
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def connect_to_read(path: Path) -> apsw.Connection:
    """Open a connection that can't change the file. Raises apsw.Error."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA trusted_schema = 0; PRAGMA cache_size = -4096")
    return connection


def check_schema(connection: apsw.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Raise LedgerConfigError if the file was made by a newer version or has an older schema; apsw.Error otherwise."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchall():
        raise no_ledger(str(path))
    applied = {row[0] for row in connection.execute("SELECT number FROM migrations")}
    if missing(migrations, applied, str(path), "file"):
        raise LedgerOutdatedError(str(path))


def connect(path: Path) -> apsw.Connection:
    """Open a connection to an existing file. Raises apsw.Error."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    configure(connection)
    return connection


def configure(connection: apsw.Connection) -> None:
    """Apply the settings that every connection shares, such as WAL and synced commits. Raises apsw.Error."""
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _enter_wal(connection)
    # fullfsync only matters on macOS, where a plain fsync stops at the drive's cache.
    connection.execute(
        "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA foreign_keys = 1; PRAGMA trusted_schema = 0;"
        " PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -4096"
    )


def _enter_wal(connection: apsw.Connection) -> None:
    """Switch to WAL, waiting up to the timeout while another process does the same (here SQLite doesn't wait)."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    """Apply the missing migrations in one transaction. Raises LedgerConfigError if a newer version made the schema."""
    with transaction(connection):
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations"
            " (number INTEGER PRIMARY KEY, title TEXT NOT NULL, applied INTEGER NOT NULL) STRICT"
        )
        applied = {row[0] for row in connection.execute("SELECT number FROM migrations")}
        new, now_ms = missing(migrations, applied, str(path), "file"), time.time_ns() // 1_000_000
        for migration in new:
            connection.execute(migration.sql)
            connection.execute("INSERT INTO migrations VALUES (?, ?, ?)", (migration.number, migration.title, now_ms))
        if begins_acts(new):
            note_existing(lambda sql, values: list(connection.execute(sql, values)), now_ms)
