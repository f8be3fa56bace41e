"""What people thought of answers: a table of its own in the ledger's database, one row per answer.

A row holds a rating from 1 to 5, or that a better answer was asked for, or both; of several ratings the last counts.
Beside them stands who answered, and at most the reason that was given with the rating: no prompt, no answer.
"""

from __future__ import annotations

from dataclasses import fields, replace
from operator import attrgetter
from threading import Lock
from typing import Protocol

from spillway_router.core.frozen import dataclass
from spillway_router.ledger.records import Execute

MOST_REASON = 500
"""Characters of a reason."""
SATISFIED = 4
"""A rating of this or more is a satisfied one."""


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """What was thought of one answer. `ts` epoch milliseconds; `rating` 1 to 5 or None; `better_id` the request that
    answered it again one tier up, or empty."""

    request_id: str
    ts: int
    key_id: str
    backend: str
    model: str
    rating: int | None = None
    reason: str = ""
    better_id: str = ""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Sums of one model's feedback: how many rated it, how many of those were satisfied, the sum of ratings, and how
    often a better answer was asked for."""

    backend: str
    model: str
    ratings: int
    satisfied: int
    rating_sum: int
    better_asked: int


class FeedbackTable(Protocol):
    """Feedback in the ledger's database. Methods are synchronous, durable when they return, safe from any thread, and
    raise LedgerUnavailableError."""

    def put(self, record: FeedbackRecord) -> None:
        """Store what was thought; what this record leaves out stays as it was."""

    def get(self, request_id: str) -> FeedbackRecord | None:
        """What was thought of one answer; None if nobody said."""

    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        """Sums per backend and model of the rows with `ts` in [start, end), in the order of their names."""


_NAMES = tuple(f.name for f in fields(FeedbackRecord))
_row = attrgetter(*_NAMES)
_PUT = (
    f"INSERT INTO feedback ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT (request_id) DO UPDATE SET ts = excluded.ts,"
    " rating = coalesce(excluded.rating, feedback.rating),"
    " reason = CASE WHEN excluded.reason = '' THEN feedback.reason ELSE excluded.reason END,"
    " better_id = CASE WHEN excluded.better_id = '' THEN feedback.better_id ELSE excluded.better_id END"
    " RETURNING request_id"
)
_GET = f"SELECT {', '.join(_NAMES)} FROM feedback WHERE request_id = ?"  # noqa: S608
_OPINIONS = (
    "SELECT backend, model, count(rating), coalesce(sum(CASE WHEN rating >= ? THEN 1 ELSE 0 END), 0),"
    " coalesce(sum(rating), 0), coalesce(sum(CASE WHEN better_id <> '' THEN 1 ELSE 0 END), 0)"
    " FROM feedback WHERE ts >= ? AND ts < ? GROUP BY backend, model ORDER BY backend, model"
)


class SqlFeedback(FeedbackTable):
    """A `FeedbackTable` in SQL that SQLite and PostgreSQL both speak."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, record: FeedbackRecord) -> None:
        """See FeedbackTable.put."""
        self._execute(_PUT, _row(record), True)

    def get(self, request_id: str) -> FeedbackRecord | None:
        """See FeedbackTable.get."""
        rows = self._execute(_GET, (request_id,), False)
        return FeedbackRecord(*rows[0]) if rows else None

    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        """See FeedbackTable.opinions."""
        rows = self._execute(_OPINIONS, (SATISFIED, start_ms, end_ms), False)
        return tuple(Opinion(row[0], row[1], *map(int, row[2:])) for row in rows)


class MemoryFeedback(FeedbackTable):
    """A `FeedbackTable` in memory, for tests: the same contract, nothing on disk."""

    def __init__(self) -> None:
        self._records: dict[str, FeedbackRecord] = {}
        self._lock = Lock()

    def put(self, record: FeedbackRecord) -> None:
        """See FeedbackTable.put."""
        with self._lock:
            known = self._records.get(record.request_id)
            if known is not None:
                record = replace(
                    known,
                    ts=record.ts,
                    rating=known.rating if record.rating is None else record.rating,
                    reason=record.reason or known.reason,
                    better_id=record.better_id or known.better_id,
                )
            self._records[record.request_id] = record

    def get(self, request_id: str) -> FeedbackRecord | None:
        """See FeedbackTable.get."""
        return self._records.get(request_id)

    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        """See FeedbackTable.opinions."""
        rows = [r for r in self._records.values() if start_ms <= r.ts < end_ms]
        found = []
        for backend, model in sorted({(r.backend, r.model) for r in rows}):
            mine = [r for r in rows if (r.backend, r.model) == (backend, model)]
            rated = [r.rating for r in mine if r.rating is not None]
            better = sum(bool(r.better_id) for r in mine)
            satisfied = sum(rating >= SATISFIED for rating in rated)
            found.append(Opinion(backend, model, len(rated), satisfied, sum(rated), better))
        return tuple(found)
