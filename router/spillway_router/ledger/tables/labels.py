"""What audits concluded about local answers: a table of its own in the ledger's database, one row per audited answer.

A row says whether the answer was right, as a whole and per field, and which scores it had: only numbers and field
names, no prompt and no answer. `spillway calibrate` learns from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from spillway_router.ledger.records import Execute

MOST_AT_ONCE = 500
"""Labels that one query reads, at most."""


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """One labelled answer.

    `ts` is in epoch milliseconds, `task` is the task as calibrations are keyed. `backend` and `model` gave the answer;
    `judge` (the name of a backend) gave the better one. `confidence` is in [0, 1] or None. `scores` (name -> number)
    and `fields` (JSON pointer -> whether the value was right) are JSON texts.
    """

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


class LabelTable(ABC):
    """Labels in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def put(self, record: LabelRecord) -> None:
        """Store a label; it replaces an earlier label of the same request."""

    @abstractmethod
    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        """Yield the labels with `ts` from then on, oldest first, reading a bounded number at a time."""


_COLUMNS = {f.name: f'"{f.name}"' for f in fields(LabelRecord)}
"""Quoted, because `right` is a keyword of SQL."""
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
    """A `LabelTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, record: LabelRecord) -> None:
        self._execute(_PUT, _row(record), True)

    def all(self, since_ms: int = 0) -> Iterator[LabelRecord]:
        after: tuple[int, str] = (-1, "")
        while rows := self._execute(_PAGE, (since_ms, *after), False):
            for row in rows:
                values = dict(zip(_COLUMNS, row, strict=True))
                record = LabelRecord(**{**values, "right": bool(values["right"])})
                after = (record.ts, record.request_id)
                yield record
