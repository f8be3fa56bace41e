"""What audits found of local answers: a table of its own in the ledger's database, one row per audited answer.

A row says whether the answer was right, as a whole and per field, and which scores it had: numbers and field names
only, no prompt, no answer. `spillway calibrate` learns from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from threading import Lock
from typing import Protocol

from spillway_router.ledger.records import Execute

MOST_AT_ONCE = 500
"""Labels read in one go."""


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One labelled answer. `ts` epoch milliseconds; `task` as calibrations are keyed; `backend` and `model` gave the
    answer, `judge` (a backend's name) the better one; `confidence` in [0, 1] or None; `scores` (name -> number) and
    `fields` (JSON pointer -> right?) are JSON texts."""

    request_id: str
    ts: int
    task: str
    backend: str
    model: str
    judge: str
    confidence: float | None
    right: bool
    scores: str
    fields: str = "{}"


class LabelTable(Protocol):
    """Labels in the ledger's database. Methods are synchronous, durable when they return, safe from any thread, and
    raise LedgerUnavailableError."""

    def put(self, record: LabelRecord) -> None:
        """Store a label; a second one of the same request replaces it."""

    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        """The labels with `ts` from then on, oldest first, read in bounded portions."""


_COLUMNS = {f.name: f'"{f.name}"' for f in fields(LabelRecord)}
"""Quoted: `right` is a word of SQL."""
_NAMES = ", ".join(_COLUMNS.values())
_row = attrgetter(*_COLUMNS)
_PUT = (
    f"INSERT INTO labels ({_NAMES}) VALUES ({', '.join('?' for _ in _COLUMNS)}) ON CONFLICT (request_id) DO UPDATE SET "  # noqa: S608
    f"{', '.join(f'{name} = excluded.{name}' for name in _COLUMNS.values())} RETURNING request_id"
)
_PAGE = (
    f"SELECT {_NAMES} FROM labels WHERE ts >= ? AND (ts, request_id) > (?, ?) ORDER BY ts, request_id"  # noqa: S608
    f" LIMIT {MOST_AT_ONCE}"
)


class SqlLabels(LabelTable):
    """A `LabelTable` in SQL that SQLite and PostgreSQL both speak."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, record: LabelRecord) -> None:
        """See LabelTable.put."""
        self._execute(_PUT, _row(record), True)

    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        """See LabelTable.all."""
        after: tuple[int, str] = (-1, "")
        while rows := self._execute(_PAGE, (since_ms, *after), False):
            for row in rows:
                found = dict(zip(_COLUMNS, row, strict=True))
                record = LabelRecord(**{**found, "right": bool(found["right"])})
                after = (record.ts, record.request_id)
                yield record


class MemoryLabels(LabelTable):
    """A `LabelTable` in memory, for tests: the same contract, nothing on disk."""

    def __init__(self) -> None:
        self._records: dict[str, LabelRecord] = {}
        self._lock = Lock()

    def put(self, record: LabelRecord) -> None:
        """See LabelTable.put."""
        with self._lock:
            self._records[record.request_id] = record

    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        """See LabelTable.all."""
        with self._lock:
            found = [record for record in self._records.values() if record.ts >= since_ms]
        yield from sorted(found, key=lambda record: (record.ts, record.request_id))
