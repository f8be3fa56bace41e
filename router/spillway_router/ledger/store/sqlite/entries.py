"""Entries into SQLite: one commit for many writes, with caps, holds, balances and the hash chain.

There are three ways, each tried when the one before can't be used:

1. alone        Rows that move no money (local answers) are inserted by one statement, which is a transaction by itself.
                SQLite then runs once outside the interpreter lock, whereas several statements would each wait for that
                lock behind a busy event loop. The head of the chain is the one of our last commit. `seq` is given
                explicitly, so if another process has written since, the first row's seq is taken and nothing is stored.
2. together     In one transaction: read what the writes depend on, check the caps, insert all rows, move the balances.
3. one by one   In one transaction, each write under a savepoint: this finds the writes that are stored already,
                conflict, or break a rule of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import apsw

from spillway_router.ledger.entries import BASE, COLUMNS, GENESIS, REST, Entry, link_of, row_of, stored_row
from spillway_router.ledger.errors import EntryConflictError, EntryRejectedError
from spillway_router.ledger.posting import (
    HoldKey,
    OpenHold,
    Posting,
    Stored,
    conflicting,
    is_plain,
    needs_holds,
    needs_reserved,
)
from spillway_router.ledger.records import Balance, CapReached, Write, WriteResult
from spillway_router.ledger.store.sqlite.file import REFUSED, transaction
from spillway_router.ledger.store.sqlite.statements import (
    CLOSE_HOLD,
    CLOSED,
    MOVE_BALANCE,
    OPEN_HOLD,
    OPEN_HOLDS,
    RESERVED_TS,
    STORED,
)
from spillway_router.ledger.store.statements import BALANCE, HEAD

MOST_ROWS = 64
"""Rows per statement; with 37 columns this is far below SQLite's limit of 32,766 bound values."""
_CROWDED_COMMITS = 64

_Head = tuple[int, bytes]


class _NotTogetherError(Exception):
    """The writes must be committed one by one."""


class EntryStore:
    """Commits writes through one connection that nothing else uses. Not thread-safe."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._head: _Head | None = None
        self._crowded = 0
        """Commits to come that skip way 1, because another process writes too."""

    def commit(self, writes: Sequence[Write]) -> list[WriteResult]:
        """Store the writes as `Ledger.commit` does. Raises apsw.Error."""
        entries = [entry for write in writes for entry in write.entries]
        plain = all(map(is_plain, entries)) and not any(write.caps for write in writes)
        if not entries and plain:
            return [None] * len(writes)
        try:
            if plain and self._alone(entries):
                return [None] * len(writes)
            self._head, results = self._together(writes, entries)
        except (_NotTogetherError, *REFUSED):
            self._head, results = self._one_by_one(writes)
        except BaseException:
            self._head = None
            raise
        return results

    # 1. alone

    def _alone(self, entries: Sequence[Entry]) -> bool:
        if self._head is None or len(entries) > MOST_ROWS:
            return False
        if self._crowded:
            self._crowded -= 1
            return False
        head, statement = _chained(self._head, entries)
        try:
            self._connection.execute(*statement)
        except apsw.ConstraintError:
            self._crowded = _CROWDED_COMMITS
            return False
        self._head = head
        return True

    # 2. together

    def _together(self, writes: Sequence[Write], entries: Sequence[Entry]) -> tuple[_Head, list[WriteResult]]:
        with transaction(self._connection):
            posting = Posting(self._stored(writes, entries))
            results = [posting.post(write) for write in writes]
            for write, result in zip(writes, results, strict=True):
                if isinstance(result, EntryConflictError) or (
                    isinstance(result, CapReached) and any(self._is_there(entry) for entry in write.entries)
                ):
                    raise _NotTogetherError  # an entry that is stored already is neither a conflict nor new spend
            stored = [e for write, result in zip(writes, results, strict=True) if result is None for e in write.entries]
            head = self._insert(self._read_head(), stored)
            self._apply(posting)
        return head, results

    def _is_there(self, entry: Entry) -> bool:
        return self._connection.execute(STORED, entry.key).fetchone() is not None

    # 3. one by one

    def _one_by_one(self, writes: Sequence[Write]) -> tuple[_Head, list[WriteResult]]:
        results: list[WriteResult] = []
        with transaction(self._connection):
            head = self._read_head()
            for write in writes:
                try:
                    with self._connection:  # a savepoint
                        head, result = self._single(head, write)
                except REFUSED as error:
                    result = EntryRejectedError(f"the ledger refused an entry: {error}")
                results.append(result)
        return head, results

    def _single(self, head: _Head, write: Write) -> tuple[_Head, WriteResult]:
        new: dict[tuple[str, int, str], Entry] = {}
        for entry in write.entries:
            row = row_of(entry)
            earlier = new.get(entry.key)
            stored = self._connection.execute(STORED, entry.key).fetchone() if earlier is None else row_of(earlier)
            if stored is None:
                new[entry.key] = entry
            elif stored_row(stored) != row:
                return head, conflicting(entry)
        entries = tuple(new.values())
        posting = Posting(self._stored((Write(entries, write.caps),), entries))
        result = posting.post(Write(entries, write.caps if any(e.kind == "reserved" for e in entries) else ()))
        if result is None:
            head = self._insert(head, entries)
            self._apply(posting)
        return head, result

    # Shared by the three ways

    def _read_head(self) -> _Head:
        row = self._connection.execute(HEAD).fetchone()
        return (0, GENESIS) if row is None else (row[0], row[1] or GENESIS)

    def _insert(self, head: _Head, entries: Sequence[Entry]) -> _Head:
        for at in range(0, len(entries), MOST_ROWS):
            part = entries[at : at + MOST_ROWS]
            head, statement = _chained(head, part)
            self._connection.execute(*statement)
        return head

    def _stored(self, writes: Sequence[Write], entries: Sequence[Entry]) -> Stored:
        closing = needs_holds(entries)
        holds = {(row[0], row[1]): OpenHold(*row[2:]) for row in self._of_attempts(OPEN_HOLDS, closing)}
        unheld = [key for key in closing if key not in holds]
        caps = {(cap.scope, cap.period, cap.start_ms) for write in writes for cap in write.caps}
        balances = {key: self._connection.execute(BALANCE, key).fetchone() for key in caps}
        return Stored(
            holds=holds,
            reserved_ts={(row[0], row[1]): row[2] for row in self._of_attempts(RESERVED_TS, needs_reserved(entries))},
            closed=frozenset((row[0], row[1]) for row in self._of_attempts(CLOSED, unheld)),
            balances={key: Balance(*row) for key, row in balances.items() if row is not None},
        )

    def _of_attempts(self, sql: str, keys: Sequence[HoldKey]) -> Iterator[tuple[Any, ...]]:
        for at in range(0, len(keys), MOST_ROWS):
            part = keys[at : at + MOST_ROWS]
            yield from self._connection.execute(sql.format(attempts=_values(2, len(part))), list(chain(*part)))

    def _apply(self, posting: Posting) -> None:
        opened = [(*key, *hold) for key, hold in posting.opened.items() if key not in posting.closed]
        closed = [key for key in posting.closed if key not in posting.opened]
        for sql, rows in ((OPEN_HOLD, opened), (CLOSE_HOLD, closed), (MOVE_BALANCE, list(posting.balance_rows()))):
            for at in range(0, len(rows), MOST_ROWS):
                part = rows[at : at + MOST_ROWS]
                self._connection.execute(sql.format(rows=_values(len(part[0]), len(part))), list(chain(*part)))


def _chained(head: _Head, entries: Sequence[Entry]) -> tuple[_Head, tuple[str, list[Any]]]:
    """Return the new head, and the statement that stores these entries, each with its seq and link."""
    seq, link = head
    values: list[Any] = []
    rows = [row_of(entry) for entry in entries]
    width = max(map(len, rows))
    for row in rows:
        seq += 1
        link = link_of(link, row)
        values.append(seq)
        values += row
        if len(row) < width:
            values += REST[len(row) - BASE : width - BASE]
        values.append(link)
    return (seq, link), (_insert_sql(len(entries), width), values)


@lru_cache(maxsize=2 * MOST_ROWS)
def _insert_sql(rows: int, width: int) -> str:
    """Return an INSERT of so many rows of so many columns; its text holds only column names and placeholders."""
    return f"INSERT INTO entries (seq,{','.join(COLUMNS[:width])},link) VALUES {_values(width + 2, rows)}"  # noqa: S608


@lru_cache(maxsize=8 * MOST_ROWS)
def _values(columns: int, rows: int) -> str:
    """Return the placeholders for so many rows."""
    return ",".join([f"({','.join('?' * columns)})"] * rows)
