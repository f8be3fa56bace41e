"""Documents that wait for a person: a table of its own in the ledger's database.

This is the only table that stores content. `forget` empties `content` (the document and the values read from it) and
`outcome` (the values decided on) some days after the decision; what remains says what happened, not what was said.
`scores` and `label` hold only numbers and field names. They stay, because calibration learns from them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from operator import attrgetter
from typing import Any, Literal

from spillway_router.ledger.errors import EntryConflictError
from spillway_router.ledger.records import Execute
from spillway_router.ledger.tables.acts import ActKind, Change, ChangeRows

ReviewState = Literal["open", "accepted", "corrected", "dismissed"]
MOST_AT_ONCE = 500
"""Reviews in one page of a list, at most."""
COMMAND = "cli"
"""Who decided where it was no API key but a command on the ledger's machine."""
_ACTS: Mapping[ReviewState, ActKind] = {
    "accepted": "review.accept",
    "corrected": "review.correct",
    "dismissed": "review.dismiss",
}


@dataclass(frozen=True, slots=True)
class ReviewRecord:
    """One review. Times are epoch milliseconds; `content`, `scores`, `outcome` and `label` are JSON texts or None.

    `step` names the step that produced the best values so far (local, parser, external, or none), `backend` and `model`
    say who answered it, `confidence` in [0, 1] or None says how sure it was, and `why` says why that was not enough.
    `decided_by` is the public id of a key, or COMMAND.
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
    """Which reviews to list, newest first.

    "" and None match any review. `before`, a pair (created_ms, id), continues the list after that review.
    """

    state: str = ""
    schema_name: str = ""
    since_ms: int | None = None
    before: tuple[int, str] | None = None
    limit: int = 50

    @property
    def page_size(self) -> int:
        """The limit, brought into the range from 1 to MOST_AT_ONCE."""
        return max(1, min(self.limit, MOST_AT_ONCE))


@dataclass(frozen=True, slots=True)
class ReviewDecision:
    """What a person decided: the state, the values as JSON text, and the label (see documents/reviews.py)."""

    state: ReviewState
    outcome: str | None
    label: str | None
    decided_ms: int
    decided_by: str


@dataclass(frozen=True, slots=True)
class OpenReviews:
    """The number of open reviews, and when the oldest was created (epoch milliseconds), None if there is none."""

    count: int
    oldest_ms: int | None


class ReviewTable(ABC):
    """Reviews in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def add(self, record: ReviewRecord) -> None:
        """Store a new review. Raises EntryConflictError if the id is taken."""

    @abstractmethod
    def get(self, review_id: str) -> ReviewRecord | None:
        """Return one review with its content, None if no review has this id."""

    @abstractmethod
    def list(self, which: ReviewFilter) -> tuple[ReviewRecord, ...]:
        """Return reviews without content and outcome, newest first, at most `which.page_size`."""

    @abstractmethod
    def count(self, state: ReviewState) -> int:
        """Return the number of reviews in this state."""

    @abstractmethod
    def waiting(self) -> OpenReviews:
        """Return how many reviews are open, and since when."""

    @abstractmethod
    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        """Close an open review; return False if no open review has this id."""

    @abstractmethod
    def forget(self, decided_before_ms: int) -> int:
        """Empty content and outcome of the reviews decided before then; return the number of reviews emptied."""


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
    """A `ReviewTable` in SQL that both SQLite and PostgreSQL understand. `change` writes a decision with its act."""

    def __init__(self, execute: Execute, change: ChangeRows) -> None:
        self._execute = execute
        self._change = change

    def add(self, record: ReviewRecord) -> None:
        if not self._execute(_ADD, _row(record), True):
            raise review_exists(record.id)

    def get(self, review_id: str) -> ReviewRecord | None:
        rows = self._execute(_GET, (review_id,), False)
        return _record(rows[0]) if rows else None

    def list(self, which: ReviewFilter) -> tuple[ReviewRecord, ...]:
        where, values = ["1 = 1"], []
        for condition, value in (
            ("state = ?", which.state or None),
            ("schema_name = ?", which.schema_name or None),
            ("created_ms >= ?", which.since_ms),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        if which.before is not None:
            where.append("(created_ms, id) < (?, ?)")
            values.extend(which.before)
        sql = (
            f"SELECT {_LISTED} FROM reviews WHERE {' AND '.join(where)}"  # noqa: S608 - only conditions from above
            " ORDER BY created_ms DESC, id DESC LIMIT ?"
        )
        return tuple(map(_record, self._execute(sql, (*values, which.page_size), False)))

    def count(self, state: ReviewState) -> int:
        return int(self._execute(_COUNT, (state,), False)[0][0])

    def waiting(self) -> OpenReviews:
        return OpenReviews(*self._execute(_WAITING, (), False)[0])

    def decide(self, review_id: str, decision: ReviewDecision) -> bool:
        d = decision
        values = (d.state, d.outcome, d.label, d.decided_ms, d.decided_by, review_id)
        return bool(self._change(_DECIDE, values, lambda _: decision_change(review_id, decision)))

    def forget(self, decided_before_ms: int) -> int:
        return len(self._execute(_FORGET, (decided_before_ms,), True))


def decision_change(review_id: str, decision: ReviewDecision) -> Change:
    """Return the change that a decision is, for the acts. No value of the document is in it."""
    label = decision.label
    return Change(
        kind=_ACTS[decision.state],
        subject=review_id,
        fields={"state": decision.state, "label_sha256": None if label is None else sha256(label.encode()).hexdigest()},
        by="" if decision.decided_by == COMMAND else f"key {decision.decided_by}",
    )


def review_exists(review_id: str) -> EntryConflictError:
    """Return the error for a new review whose id is taken."""
    return EntryConflictError(f"a review with the id {review_id} exists")


def _record(row: Sequence[Any]) -> ReviewRecord:
    values = dict(zip(_NAMES, row, strict=True))
    return ReviewRecord(**{**values, "private": bool(values["private"])})
