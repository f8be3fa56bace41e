"""Documents that wait for a person: a table of its own in the ledger's database.

It is the one place where content is stored. `content` (the document and what was read in it) and `outcome` (the values
decided on) are emptied some days after the decision, by `forget`; what is left says what happened, not what was said.
`scores` and `label` are numbers and field names only: they stay, as calibration learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from operator import attrgetter
from threading import Lock
from typing import Any, Literal, Protocol

from spillway_router.core.frozen import dataclass
from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.records import Execute

ReviewState = Literal["open", "accepted", "corrected", "dismissed"]
MOST_AT_ONCE = 500
"""Reviews in one page of a list."""


@dataclass(frozen=True, slots=True)
class ReviewRecord:
    """One review. Times are epoch milliseconds; `content`, `scores`, `outcome` and `label` JSON texts or None.

    `step` made the best values so far (local, parser, external, or none), `backend` and `model` name it, `confidence`
    in [0, 1] or None is how sure it was, `why` says why that was not enough. `decided_by` is the public id of a key.
    """

    id: str
    request_id: str
    created_ms: int
    schema_name: str
    key_id: str = ""
    private: bool = False
    step: str = ""
    backend: str = ""
    model: str = ""
    confidence: float | None = None
    why: str = ""
    scores: str = "{}"
    content: str | None = None
    state: ReviewState = "open"
    outcome: str | None = None
    label: str | None = None
    decided_ms: int | None = None
    decided_by: str = ""


@dataclass(frozen=True, slots=True)
class ReviewFilter:
    """Which reviews to list, newest first. "" and None: any. `before`: those behind this one, (created_ms, id)."""

    state: str = ""
    schema_name: str = ""
    since_ms: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What a person decided: the state, the values as JSON text, and the label that follows (documents/reviews.py)."""

    state: ReviewState
    outcome: str | None
    label: str | None
    decided_ms: int
    decided_by: str


@dataclass(frozen=True, slots=True)
class OpenReviews:
    """Open reviews: how many, and when the oldest was made (epoch milliseconds), None where there is none."""

    count: int
    oldest_ms: int | None


class ReviewTable(Protocol):
    """Reviews in the ledger's database. Methods are synchronous, durable when they return, safe from any thread, and
    raise LedgerUnavailableError."""

    def add(self, record: ReviewRecord) -> None:
        """Store a new review. Raises EntryConflictError if the id is taken."""

    def get(self, review_id: str) -> ReviewRecord | None:
        """One review with its content; None if there is none."""

    def list(self, wanted: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """Reviews without content and outcome, newest first, at most `limit` (MOST_AT_ONCE)."""

    def count(self, state: ReviewState) -> int:
        """How many are in this state."""

    def waiting(self) -> OpenReviews:
        """How many reviews are open, and since when."""

    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        """Close an open review; False if there is no such review that is open."""

    def forget(self, decided_before_ms: int) -> int:
        """Empty content and outcome of reviews decided before; returns of how many."""


_NAMES = tuple(f.name for f in fields(ReviewRecord))
_row = attrgetter(*_NAMES)
_COLUMNS = ", ".join(_NAMES)
_LISTED = ", ".join("NULL" if name in ("content", "outcome") else name for name in _NAMES)
_ADD = (
    f"INSERT INTO reviews ({_COLUMNS}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT DO NOTHING RETURNING id"
)
_GET = f"SELECT {_COLUMNS} FROM reviews WHERE id = ?"  # noqa: S608
_COUNT = "SELECT count(*) FROM reviews WHERE state = ?"
_WAITING = "SELECT count(*), min(created_ms) FROM reviews WHERE state = 'open'"
_DECIDE = (
    "UPDATE reviews SET state = ?, outcome = ?, label = ?, decided_ms = ?, decided_by = ?"
    " WHERE id = ? AND state = 'open' RETURNING id"
)
_FORGET = "UPDATE reviews SET content = NULL, outcome = NULL WHERE content IS NOT NULL AND decided_ms < ? RETURNING id"


class SqlReviews(ReviewTable):
    """A `ReviewTable` in SQL that SQLite and PostgreSQL both speak."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def add(self, record: ReviewRecord) -> None:
        """See ReviewTable.add."""
        if not self._execute(_ADD, _row(record), True):
            raise _taken(record.id)

    def get(self, review_id: str) -> ReviewRecord | None:
        """See ReviewTable.get."""
        rows = self._execute(_GET, (review_id,), False)
        return _record(rows[0]) if rows else None

    def list(self, wanted: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """See ReviewTable.list."""
        where, bound = ["1 = 1"], []
        for condition, value in (
            ("state = ?", wanted.state or None),
            ("schema_name = ?", wanted.schema_name or None),
            ("created_ms >= ?", wanted.since_ms),
        ):
            if value is not None:
                where.append(condition)
                bound.append(value)
        if wanted.before is not None:
            where.append("(created_ms, id) < (?, ?)")
            bound.extend(wanted.before)
        text = (
            f"SELECT {_LISTED} FROM reviews WHERE {' AND '.join(where)}"  # noqa: S608 - only conditions from above
            " ORDER BY created_ms DESC, id DESC LIMIT ?"
        )
        return tuple(map(_record, self._execute(text, (*bound, _page(wanted)), False)))

    def count(self, state: ReviewState) -> int:
        """See ReviewTable.count."""
        return int(self._execute(_COUNT, (state,), False)[0][0])

    def waiting(self) -> OpenReviews:
        """See ReviewTable.waiting."""
        return OpenReviews(*self._execute(_WAITING, (), False)[0])

    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        """See ReviewTable.decide."""
        d = decision
        return bool(self._execute(_DECIDE, (d.state, d.outcome, d.label, d.decided_ms, d.decided_by, review_id), True))

    def forget(self, decided_before_ms: int) -> int:
        """See ReviewTable.forget."""
        return len(self._execute(_FORGET, (decided_before_ms,), True))


class MemoryReviews(ReviewTable):
    """A `ReviewTable` in memory, for tests: the same contract, nothing on disk."""

    def __init__(self) -> None:
        self._records: dict[str, ReviewRecord] = {}
        self._lock = Lock()

    def add(self, record: ReviewRecord) -> None:
        """See ReviewTable.add."""
        with self._lock:
            if record.id in self._records:
                raise _taken(record.id)
            self._records[record.id] = record

    def get(self, review_id: str) -> ReviewRecord | None:
        """See ReviewTable.get."""
        return self._records.get(review_id)

    def list(self, wanted: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """See ReviewTable.list."""
        found = [
            replace(r, content=None, outcome=None)
            for r in self._records.values()
            if wanted.state in ("", r.state)
            and wanted.schema_name in ("", r.schema_name)
            and (wanted.since_ms is None or r.created_ms >= wanted.since_ms)
            and (wanted.before is None or (r.created_ms, r.id) < wanted.before)
        ]
        found.sort(key=lambda r: (r.created_ms, r.id), reverse=True)
        return tuple(found[: _page(wanted)])

    def count(self, state: ReviewState) -> int:
        """See ReviewTable.count."""
        return sum(r.state == state for r in self._records.values())

    def waiting(self) -> OpenReviews:
        """See ReviewTable.waiting."""
        made = [r.created_ms for r in self._records.values() if r.state == "open"]
        return OpenReviews(len(made), min(made, default=None))

    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        """See ReviewTable.decide."""
        d = decision
        with self._lock:
            known = self._records.get(review_id)
            if known is None or known.state != "open":
                return False
            self._records[review_id] = replace(
                known, state=d.state, outcome=d.outcome, label=d.label, decided_ms=d.decided_ms, decided_by=d.decided_by
            )
            return True

    def forget(self, decided_before_ms: int) -> int:
        """See ReviewTable.forget."""
        with self._lock:
            old = [
                r
                for r in self._records.values()
                if r.content is not None and r.decided_ms is not None and r.decided_ms < decided_before_ms
            ]
            for r in old:
                self._records[r.id] = replace(r, content=None, outcome=None)
            return len(old)


def _page(wanted: ReviewFilter) -> int:
    return max(1, min(wanted.limit, MOST_AT_ONCE))


def _record(row: Sequence[Any]) -> ReviewRecord:
    found = dict(zip(_NAMES, row, strict=True))
    return ReviewRecord(**{**found, "private": bool(found["private"])})


def _taken(review_id: str) -> EntryConflictError:
    return EntryConflictError(f"a review with the id {review_id} exists")
