"""What the arms of experiments did: sums over the rows that carry an arm's mark, and over the feedback on them.

Requests are summed up by unit first and units by arm then, all in the database, because what a comparison needs is how
the units of an arm differ (core/comparison/differences.py). Audits are not counted: they cost extra to learn about
local answers, whatever the arm. The rows of a shadow carry the mark of its own arm; those of the answer that the client
of the same request got count for the control.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from spillway_router.core.comparison.differences import RatioSums
from spillway_router.core.routing.experiments import UNIT_DIGITS
from spillway_router.core.routing.moving_arms import Stretch
from spillway_router.ledger.entries import ANSWERED
from spillway_router.ledger.records import Execute


@dataclass(frozen=True, slots=True)
class ArmSums:
    """What one arm did. The times of the first and the last request are epoch milliseconds.

    `cost` is in nano-dollars per request, `took` in milliseconds per answer of a backend, `escalated` a share of the
    answers, and `rating` from 1 to 5 per rating.
    """

    arm: str
    """The experiment and the arm, as experiment/arm."""
    requests: int
    answered: int
    first_ms: int
    last_ms: int
    cost: RatioSums
    took: RatioSums
    escalated: RatioSums
    rating: RatioSums
    agreement: RatioSums = RatioSums()
    """Of a shadow: the share of its answers that say the same as the clients'."""
    dry: int = 0
    """Of a shadow that only decides: its requests."""


@dataclass(frozen=True, slots=True)
class DryChoice:
    """The requests of a dry shadow's arm for which it chose one backend, and what their own answers took and cost."""

    arm: str
    backend: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nano: int


@dataclass(frozen=True, slots=True)
class ShareMove:
    """The shares of an experiment from the beginning of an interval (epoch milliseconds) on, and why they moved.

    `setup` is the digest of the arms as configured, `stretches` are the places of the arms, and `reasons` JSON values.
    """

    experiment: str
    setup: str
    at_ms: int
    stretches: tuple[Stretch, ...]
    reasons: Mapping[str, Any]


class ExperimentTable(ABC):
    """The rows of experiments in the ledger's database. Methods raise LedgerUnavailableError."""

    @abstractmethod
    def arms(self, start_ms: int, end_ms: int) -> tuple[ArmSums, ...]:
        """Return the sums of the rows with `ts` in [start, end) for each arm, in the order of their names."""

    @abstractmethod
    def dry_choices(self, start_ms: int, end_ms: int) -> tuple[DryChoice, ...]:
        """Return what dry shadows chose for requests with `ts` in [start, end), by arm and backend."""

    @abstractmethod
    def keep_move(self, move: ShareMove) -> bool:
        """Store a move durably; return False, and store nothing, if the experiment has one of this setup and time."""

    @abstractmethod
    def latest_move(self, experiment: str, setup: str) -> ShareMove | None:
        """Return the latest move of an experiment with this setup."""

    @abstractmethod
    def moves(self, start_ms: int, end_ms: int) -> tuple[ShareMove, ...]:
        """Return the moves of all experiments with `at_ms` in [start, end), in the order of time."""


_ANSWERED = ", ".join(f"'{status}'" for status in ANSWERED)
_MEASURES = (
    ("cost", "requests"),
    ("took", "timed"),
    ("escalated", "answered"),
    ("rating", "ratings"),
    ("agreed", "compared"),
)
"""The amount and the count of each measure, by unit."""

_HAS_ANSWER = f"kind = 'charged' AND (status IN ({_ANSWERED}) OR (decision = 'shadow' AND status = 'discarded'))"
_REQUESTS = (
    "SELECT request_id, experiment AS mark, min(ts) AS ts, sum(amount_nano) AS cost,"  # noqa: S608
    f" max(CASE WHEN {_HAS_ANSWER} THEN 1 ELSE 0 END) AS answered,"
    f" max(CASE WHEN {_HAS_ANSWER} THEN took_ms ELSE 0 END) AS took,"
    f" max(CASE WHEN {_HAS_ANSWER} AND decision = 'escalated' THEN 1 ELSE 0 END) AS escalated,"
    " max(CASE WHEN decision = 'shadow' THEN 1 ELSE 0 END) AS shadow,"
    " max(CASE WHEN reasons = 'shadow,agrees' THEN 1 ELSE 0 END) AS agreed,"
    " max(CASE WHEN reasons IN ('shadow,agrees', 'shadow,differs') THEN 1 ELSE 0 END) AS compared,"
    " max(CASE WHEN substr(reasons, 1, 10) = 'shadow,dry' THEN 1 ELSE 0 END) AS dry"
    " FROM entries WHERE experiment <> '' AND kind <> 'reserved' AND decision <> 'audit' AND ts >= ? AND ts < ?"
    " GROUP BY request_id, experiment"
)
_UNITS = (
    "SELECT mark, min(one.ts) AS first_ms, max(one.ts) AS last_ms, count(*) AS requests, sum(cost) AS cost,"  # noqa: S608
    " sum(answered) AS answered, sum(took) AS took, sum(CASE WHEN took > 0 THEN 1 ELSE 0 END) AS timed,"
    " sum(escalated) AS escalated, coalesce(sum(rating), 0) AS rating, count(rating) AS ratings,"
    " sum(agreed) AS agreed, sum(compared) AS compared, sum(dry) AS dry"
    f" FROM ({_REQUESTS}) AS one"
    " LEFT JOIN feedback ON feedback.request_id = one.request_id AND one.shadow = 0 GROUP BY mark"
)
_DRY = (
    "SELECT substr(dry.experiment, 1, length(dry.experiment) - "  # noqa: S608
    f"{UNIT_DIGITS + 1}) AS arm, dry.backend, count(*), sum(answer.prompt_tokens), sum(answer.cached_tokens),"
    " sum(answer.completion_tokens), sum(answer.amount_nano)"
    " FROM entries AS dry JOIN entries AS answer ON answer.request_id = dry.request_id AND answer.kind = 'charged'"
    f" AND answer.status IN ({_ANSWERED})"
    " WHERE dry.experiment <> '' AND dry.kind = 'released' AND substr(dry.reasons, 1, 10) = 'shadow,dry'"
    " AND dry.ts >= ? AND dry.ts < ? GROUP BY arm, dry.backend ORDER BY arm, dry.backend"
)


def _sums_of(amount: str, count: str) -> str:
    """Return SQL for the fields of RatioSums."""
    x, n = (f"CAST({name} AS double precision)" for name in (amount, count))
    squares = f"sum({x} * {x}), sum({n} * {n}), sum({x} * {n})"
    return f"sum(CASE WHEN {count} > 0 THEN 1 ELSE 0 END), sum({x}), sum({n}), {squares}"


_ARMS = (
    f"SELECT substr(mark, 1, length(mark) - {UNIT_DIGITS + 1}) AS arm, sum(requests), sum(answered), min(first_ms),"  # noqa: S608
    f" max(last_ms), sum(dry), {', '.join(_sums_of(amount, count) for amount, count in _MEASURES)}"
    f" FROM ({_UNITS}) AS units GROUP BY arm ORDER BY arm"
)
_WIDTH = 6


_MOVE_NAMES = "experiment, setup, at_ms, stretches, reasons"
_KEEP_MOVE = (
    f"INSERT INTO share_moves ({_MOVE_NAMES}) VALUES (?, ?, ?, ?, ?)"  # noqa: S608
    " ON CONFLICT (experiment, setup, at_ms) DO NOTHING RETURNING at_ms"
)
_LATEST_MOVE = (
    f"SELECT {_MOVE_NAMES} FROM share_moves WHERE experiment = ? AND setup = ?"  # noqa: S608
    " ORDER BY at_ms DESC LIMIT 1"
)
_MOVES = (
    f"SELECT {_MOVE_NAMES} FROM share_moves WHERE at_ms >= ? AND at_ms < ?"  # noqa: S608
    " ORDER BY at_ms, experiment, setup"
)


class SqlExperiments(ExperimentTable):
    """An `ExperimentTable` in SQL that both SQLite and PostgreSQL understand."""

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def arms(self, start_ms: int, end_ms: int) -> tuple[ArmSums, ...]:
        return tuple(_arm(row) for row in self._execute(_ARMS, (start_ms, end_ms), False))

    def dry_choices(self, start_ms: int, end_ms: int) -> tuple[DryChoice, ...]:
        rows = self._execute(_DRY, (start_ms, end_ms), False)
        return tuple(DryChoice(str(row[0]), str(row[1]), *(int(value) for value in row[2:])) for row in rows)

    def keep_move(self, move: ShareMove) -> bool:
        stretches = orjson.dumps([[one.arm, one.begins, one.ends] for one in move.stretches]).decode()
        reasons = orjson.dumps(move.reasons).decode()
        values = (move.experiment, move.setup, move.at_ms, stretches, reasons)
        return bool(self._execute(_KEEP_MOVE, values, True))

    def latest_move(self, experiment: str, setup: str) -> ShareMove | None:
        rows = self._execute(_LATEST_MOVE, (experiment, setup), False)
        return _move(rows[0]) if rows else None

    def moves(self, start_ms: int, end_ms: int) -> tuple[ShareMove, ...]:
        return tuple(map(_move, self._execute(_MOVES, (start_ms, end_ms), False)))


def _move(row: tuple[Any, ...]) -> ShareMove:
    experiment, setup, at_ms, stretches, reasons = row
    placed = tuple(Stretch(arm, begins, ends) for arm, begins, ends in orjson.loads(stretches))
    return ShareMove(
        experiment=experiment, setup=setup, at_ms=int(at_ms), stretches=placed, reasons=orjson.loads(reasons)
    )


def _arm(row: tuple[object, ...]) -> ArmSums:
    requests, answered, first_ms, last_ms, dry, *sums = (float(value) for value in row[1:])  # type: ignore[arg-type]
    measures = [sums[at : at + _WIDTH] for at in range(0, len(sums), _WIDTH)]
    cost, took, escalated, rating, agreement = (RatioSums(int(units), *rest) for units, *rest in measures)
    return ArmSums(
        arm=str(row[0]),
        requests=int(requests),
        answered=int(answered),
        first_ms=int(first_ms),
        last_ms=int(last_ms),
        cost=cost,
        took=took,
        escalated=escalated,
        rating=rating,
        agreement=agreement,
        dry=int(dry),
    )
