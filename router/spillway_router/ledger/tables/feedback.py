"""What people thought of answers: a table of its own in the ledger's database, one row per answer.

A row holds a rating from 1 to 5, or the request for a better answer, or both; of several ratings the last one counts.
The row also says who answered, and the reason given with the rating, if any. It holds no prompt and no answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from spillway_router.ledger.records import Execute

MOST_REASON = 500
"""Characters of a reason, at most."""
SATISFIED = 4
"""A rating of this or more counts as satisfied."""
MOST_AT_ONCE = 500
"""Rows that one query reads, at most."""


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    """What people thought of one answer.

    `ts` is in epoch milliseconds, `rating` from 1 to 5 or None, and `better_id` the request that answered again one
    tier up, or empty; `pressed_by`, `pressed_tier` and `pressed_user` are the API key that asked for it, its tier and
    the pseudonym of the end user whom that request named.
    """

    request_id: str
    ts: int
    key_id: str
    backend: str
    model: str
    rating: int | None = None
    reason: str = ""
    better_id: str = ""
    pressed_by: str = ""
    pressed_tier: str = ""
    pressed_user: str = ""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Sums of one model's feedback: the number of ratings, how many of them were satisfied, the sum of the ratings,
    and how often a client asked for a better answer."""

    backend: str
    model: str
    ratings: int
    satisfied: int
    rating_sum: int
    better_asked: int


@dataclass(frozen=True, slots=True)
class Pressed:
    """How often somebody had answers given better: an API key, its tier, and the pseudonym of an end user.

    `compared` counts the answers of which both, the first one and the better one, were rated, and `gained_sum` is the
    sum of how much higher the better ones were.
    """

    key_id: str
    tier: str
    user_id: str
    asked: int
    compared: int
    gained_sum: int


class FeedbackTable(ABC):
    """Feedback in the ledger's database.

    Methods are synchronous, durable when they return, safe to call from any thread, and raise LedgerUnavailableError.
    """

    @abstractmethod
    def put(self, record: FeedbackRecord) -> None:
        """Store feedback; fields that the record leaves empty keep their stored values."""

    @abstractmethod
    def get(self, request_id: str) -> FeedbackRecord | None:
        """Return the feedback on one answer, None if there is none."""

    @abstractmethod
    def all(self, since_ms: int = 0) -> Iterator[FeedbackRecord]:
        """Yield the rows with `ts` from then on, oldest first, reading a bounded number at a time."""

    @abstractmethod
    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        """Return sums per backend and model of the rows with `ts` in [start, end), in the order of their names."""

    @abstractmethod
    def pressed(self, start_ms: int, end_ms: int, most: int) -> tuple[Pressed, ...]:
        """Return who had answers given better, of the rows with `ts` in [start, end): those who did most often."""


_NAMES = tuple(f.name for f in fields(FeedbackRecord))
_row = attrgetter(*_NAMES)
_PUT = (
    f"INSERT INTO feedback ({', '.join(_NAMES)}) VALUES ({', '.join('?' for _ in _NAMES)})"  # noqa: S608
    " ON CONFLICT (request_id) DO UPDATE SET ts = excluded.ts,"
    " rating = coalesce(excluded.rating, feedback.rating),"
    " reason = CASE WHEN excluded.reason = '' THEN feedback.reason ELSE excluded.reason END,"
    + ",".join(
        f" {name} = CASE WHEN excluded.better_id = '' THEN feedback.{name} ELSE excluded.{name} END"
        for name in ("better_id", "pressed_by", "pressed_tier", "pressed_user")
    )
    + " RETURNING request_id"
)
_GET = f"SELECT {', '.join(_NAMES)} FROM feedback WHERE request_id = ?"  # noqa: S608
_PAGE = (
    f"SELECT {', '.join(_NAMES)} FROM feedback WHERE ts >= ? AND (ts, request_id) > (?, ?)"  # noqa: S608
    f" ORDER BY ts, request_id LIMIT {MOST_AT_ONCE}"
)
_OPINIONS = (
    "SELECT backend, model, count(rating), coalesce(sum(CASE WHEN rating >= ? THEN 1 ELSE 0 END), 0),"
    " coalesce(sum(rating), 0), coalesce(sum(CASE WHEN better_id <> '' THEN 1 ELSE 0 END), 0)"
    " FROM feedback WHERE ts >= ? AND ts < ? GROUP BY backend, model ORDER BY backend, model"
)


_BOTH_RATED = "CASE WHEN first.rating IS NOT NULL AND better.rating IS NOT NULL THEN"
_PRESSED = (
    "SELECT first.pressed_by, first.pressed_tier, first.pressed_user, count(*),"  # noqa: S608
    f" sum({_BOTH_RATED} 1 ELSE 0 END), sum({_BOTH_RATED} better.rating - first.rating ELSE 0 END)"
    " FROM feedback AS first LEFT JOIN feedback AS better ON better.request_id = first.better_id"
    " WHERE first.better_id <> '' AND first.ts >= ? AND first.ts < ?"
    " GROUP BY first.pressed_by, first.pressed_tier, first.pressed_user"
    " ORDER BY count(*) DESC, first.pressed_by, first.pressed_tier, first.pressed_user LIMIT ?"
)


class SqlFeedback(FeedbackTable):
    """A `FeedbackTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def put(self, record: FeedbackRecord) -> None:
        self._execute(_PUT, _row(record), True)

    def get(self, request_id: str) -> FeedbackRecord | None:
        rows = self._execute(_GET, (request_id,), False)
        return FeedbackRecord(*rows[0]) if rows else None

    def all(self, since_ms: int = 0) -> Iterator[FeedbackRecord]:
        after: tuple[int, str] = (-1, "")
        while rows := self._execute(_PAGE, (since_ms, *after), False):
            for row in rows:
                record = FeedbackRecord(*row)
                after = (record.ts, record.request_id)
                yield record

    def opinions(self, start_ms: int, end_ms: int) -> tuple[Opinion, ...]:
        rows = self._execute(_OPINIONS, (SATISFIED, start_ms, end_ms), False)
        return tuple(Opinion(row[0], row[1], *map(int, row[2:])) for row in rows)

    def pressed(self, start_ms: int, end_ms: int, most: int) -> tuple[Pressed, ...]:
        rows = self._execute(_PRESSED, (start_ms, end_ms, most), False)
        return tuple(Pressed(*row[:3], *map(int, row[3:])) for row in rows)
