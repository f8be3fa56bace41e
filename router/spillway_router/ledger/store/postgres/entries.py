"""Entries into PostgreSQL: one transaction for many writes, with caps, holds, balances and the hash chain.

All routers take one advisory lock for the length of their transaction. The chain needs a total order of all rows
anyway, and with that order caps are exact without a lock per balance, so nothing can deadlock. All requests of a router
that wait for a commit share its cost. A commit takes two round trips: lock and read what the writes depend on, then
store and commit. There are three ways, each tried when the one before fails:

1. together     Store the writes as if no row existed yet. If a write would be refused, or a row's key is taken:
2. looked up    Compare with the stored rows: the same entry again is a harmless retry.
3. one by one   If the database refuses a value, commit each write under a savepoint to find the faulty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import orjson
import psycopg

from spillway_router.ledger.entries import COLUMNS, GENESIS, Entry, Row, row_of, stored_row
from spillway_router.ledger.errors import EntryRejectedError
from spillway_router.ledger.posting import (
    OpenHold,
    Posting,
    Stored,
    conflicting,
    needs_holds,
    needs_reserved,
)
from spillway_router.ledger.records import Balance, Write, WriteResult
from spillway_router.ledger.store.postgres.session import Connection
from spillway_router.ledger.store.postgres.statements import (
    BALANCES_OF,
    BEGIN,
    CLOSE_HOLDS,
    CLOSING,
    INSERT,
    LOCK,
    MOVE_BALANCES,
    OPEN_HOLDS,
    RESERVED_TS,
    STORED,
)
from spillway_router.ledger.store.statements import HEAD

_REFUSED = (psycopg.IntegrityError, psycopg.DataError, TypeError, ValueError, OverflowError)
"""The exceptions that the database, the driver and orjson raise for a value that can't be stored."""

_EntryKey = tuple[str, int, str]


def commit(connection: Connection, writes: Sequence[Write]) -> list[WriteResult]:
    """Store the writes as `Ledger.commit` does. Raises psycopg.Error."""
    if not any(write.entries for write in writes):
        return [None] * len(writes)
    for look in (False, True):
        try:
            with connection.pipeline():
                connection.execute(BEGIN)
                connection.execute(LOCK)
                results = _store(connection, writes, look)
                connection.execute("COMMIT")
            return results
        except psycopg.errors.UniqueViolation:
            connection.rollback()
        except _REFUSED:
            connection.rollback()
            break
    return _one_by_one(connection, writes)


def _one_by_one(connection: Connection, writes: Sequence[Write]) -> list[WriteResult]:
    results: list[WriteResult] = []
    with connection.transaction():
        connection.execute(LOCK)
        for write in writes:
            try:
                with connection.transaction():  # a savepoint
                    results += _store(connection, (write,), look=True)
            except _REFUSED as error:
                results.append(EntryRejectedError(f"the ledger refused an entry: {str(error).partition(chr(10))[0]}"))
    return results


def _store(connection: Connection, writes: Sequence[Write], look: bool) -> list[WriteResult]:
    """Check the writes in order and store the valid ones. `look` says to read first which rows exist already."""
    entries = [entry for write in writes for entry in write.entries]
    head = connection.execute(HEAD)
    stored_rows = _stored_rows(connection, entries) if look else {}
    stored = _stored(connection, writes, entries)
    posting, results, new = _judge(writes, stored, stored_rows)
    if not look and any(result is not None for result in results):
        posting, results, new = _judge(writes, stored, _stored_rows(connection, entries))
    if new:
        _insert(connection, head.fetchone() or (0, GENESIS), new)
        _apply(connection, posting)
    return results


def _judge(
    writes: Sequence[Write], stored: Stored, stored_rows: dict[_EntryKey, Row]
) -> tuple[Posting, list[WriteResult], list[Row]]:
    """Return what the writes change, their results, and the rows that are new.

    `stored_rows` maps keys to stored rows; the new rows are added to it.
    """
    posting, results, new = Posting(stored), list[WriteResult](), list[Row]()
    for write in writes:
        mine: dict[_EntryKey, Row] = {}
        fresh: list[Entry] = []
        result: WriteResult = None
        for entry in write.entries:
            row, key = row_of(entry), entry.key
            stored_before = stored_rows.get(key) or mine.get(key)
            if stored_before is None:
                mine[key] = row
                fresh.append(entry)
            elif stored_before != row:
                result = conflicting(entry)
                break
        if result is None and fresh:
            reserves = any(entry.kind == "reserved" for entry in fresh)
            result = posting.post(Write(tuple(fresh), write.caps if reserves else ()))
            if result is None:
                stored_rows.update(mine)
                new += mine.values()
        results.append(result)
    return posting, results, new


def _stored_rows(connection: Connection, entries: Iterable[Entry]) -> dict[_EntryKey, Row]:
    keys = orjson.dumps([(entry.request_id, entry.attempt_no, entry.kind) for entry in entries])
    kind, request_id, attempt_no = (COLUMNS.index(name) for name in ("kind", "request_id", "attempt_no"))
    rows = connection.execute(STORED, (keys.decode(),)).fetchall()
    return {(row[request_id], row[attempt_no], row[kind]): stored_row(row) for row in rows}


def _stored(connection: Connection, writes: Sequence[Write], entries: Sequence[Entry]) -> Stored:
    """Read what the writes depend on, in one round trip, skipping the queries that would have no keys."""
    caps = {(cap.scope, cap.period, cap.start_ms) for write in writes for cap in write.caps}
    cursors = [
        connection.execute(sql, (orjson.dumps(keys).decode(),)) if keys else None
        for sql, keys in (
            (CLOSING, needs_holds(iter(entries))),
            (RESERVED_TS, needs_reserved(iter(entries))),
            (BALANCES_OF, list(caps)),
        )
    ]
    closing, reserved, balances = ([] if cursor is None else cursor.fetchall() for cursor in cursors)
    return Stored(
        holds={(row[0], row[1]): OpenHold(*row[2:9]) for row in closing if row[3] is not None},
        reserved_ts={(row[0], row[1]): row[2] for row in reserved},
        closed=frozenset((row[0], row[1]) for row in closing if row[9]),
        balances={(row[0], row[1], row[2]): Balance(row[3], row[4]) for row in balances},
    )


def _insert(connection: Connection, head: tuple[Any, ...], rows: Sequence[Row]) -> None:
    """Store rows after the head of the chain.

    The database gets the same bytes that the links are computed over (entries.link_of).
    """
    seq, link = head
    parts, links = [], []
    for row in rows:
        part = orjson.dumps(row)
        link = sha256(link + part).digest()
        parts.append(part)
        links.append(link)
    connection.execute(INSERT, (seq, b"".join(links), (b"[%b]" % b",".join(parts)).decode()))


def _apply(connection: Connection, posting: Posting) -> None:
    opened = [(*key, *hold) for key, hold in posting.opened.items() if key not in posting.closed]
    closed = [key for key in posting.closed if key not in posting.opened]
    for sql, rows in ((OPEN_HOLDS, opened), (CLOSE_HOLDS, closed), (MOVE_BALANCES, list(posting.balance_rows()))):
        if rows:
            connection.execute(sql, (orjson.dumps(rows).decode(),))
