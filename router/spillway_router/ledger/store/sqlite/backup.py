"""Backup and restore of a ledger in a SQLite file, by SQLite's online backup: a copy of one moment, in one file.

A copy of the file alone is no backup. While a router has the ledger open, the newest rows are in the -wal file beside
it, and a copy of both may catch them at different moments.

Both may be killed at any step. A backup gets its name once it is whole and on disk. A restore that was killed between
its two renames leaves a copy under `restoring_of`, and no router makes a new ledger beside that (file.py).
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import apsw

from spillway_router.ledger.errors import LedgerConfigError, LedgerError, LedgerUnavailableError, no_ledger
from spillway_router.ledger.orphans import SILENT_MS
from spillway_router.ledger.store.sqlite.file import connect_to_read, has_mark, restoring_of, wal_of
from spillway_router.ledger.store.sqlite.ledger import SqliteLedger


def back_up(source: Path, target: Path) -> None:
    """Copy a ledger into a new file, while routers may continue to write.

    Raises LedgerConfigError if there is no ledger or the file exists already, LedgerUnavailableError if the copy fails;
    the file does not exist then.
    """
    if not source.exists():
        raise no_ledger(str(source))
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        if target.exists():
            raise FileExistsError
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy(source, part)
            os.fsync(descriptor)
            _publish(part, target)
        finally:
            os.close(descriptor)
            part.unlink(missing_ok=True)
    except FileExistsError:
        raise LedgerConfigError(f"{target} exists; name a new file") from None
    except OSError as error:
        raise LedgerConfigError(f"{target} can't be written: {error.strerror or error}") from error
    except apsw.Error as error:
        raise LedgerUnavailableError(f"the ledger {source} can't be copied to {target}: {error}") from error


def restore(backup: Path, target: Path, now_ms: int) -> Path | None:
    """Put a backup in the place of a ledger; return where the ledger was moved that was there before, None without one.

    Raises LedgerConfigError if a router has the ledger open (`now_ms` is the present in epoch milliseconds), and as
    `back_up` does.
    """
    before = None
    if target.exists():
        _refuse_if_in_use(target, now_ms)
        before = _free_name(target, now_ms)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = restoring_of(target)
    fresh.unlink(missing_ok=True)
    back_up(backup, fresh)
    if before is not None:
        with suppress(LedgerError):  # it may be damaged
            SqliteLedger.open(target).close()  # what a crashed router left in the -wal file moves into the database
        target.rename(before)
        for beside in (wal_of(target), target.with_name(f"{target.name}-shm")):
            if beside.exists():
                beside.rename(before.with_name(before.name + beside.name.removeprefix(target.name)))
    fresh.rename(target)
    _sync_folder(target.parent)
    return before


def _publish(part: Path, target: Path) -> None:
    """Give a whole file its name, which must be free. Raises OSError."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError from None
        part.rename(target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Put the names in a folder on disk. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: Path, target: Path) -> None:
    with closing(connect_to_read(source)) as read, closing(apsw.Connection(str(target))) as written:
        with written.backup("main", read, "main") as copying:
            copying.step()  # all pages in one step: otherwise each commit of a router would begin the copy again
        # One file without others beside it, which no router has open.
        written.execute("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL")
        if has_mark(written):
            written.execute("UPDATE marks SET in_use = 0")


def _refuse_if_in_use(target: Path, now_ms: int) -> None:
    try:
        with closing(connect_to_read(target)) as ledger:
            seen = ledger.execute("SELECT count(*) FROM routers WHERE seen_ms > ?", (now_ms - SILENT_MS,)).fetchall()
    except apsw.Error:
        return  # a damaged ledger is a reason to restore
    if seen[0][0]:
        raise LedgerConfigError(
            f"a router has used the ledger {target} in the last {SILENT_MS // 1000} s; stop it and try again"
        )


def _free_name(target: Path, now_ms: int) -> Path:
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")
    return target.with_name(f"{target.name}.before-restore-{stamp}")
