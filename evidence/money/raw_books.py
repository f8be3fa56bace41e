"""The figures of a report, added up from the raw rows of a SQLite ledger by other means than the product's.

The rules are those of docs/money.md, written down again: a row counts on the day of its attempt's hold, each day's bill
is split over its groups of attempts by the largest remainder, and a group's part over its API keys by running totals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from pathlib import Path
from typing import Any

import apsw

GROUP = ("decision", "backend", "provider", "model", "status", "document", "tier", "task")
FIGURES = ("attempts", "answers", "documents", "prompt_tokens", "completion_tokens", "used", "idle", "cloud")
_ANSWERED = ("ok", "aborted")


@dataclass(slots=True)
class Atom:
    """What is added up: the values by which reports group, and the figures of one day, group and key (or hold)."""

    keys: dict[str, str]
    local: bool = False
    document: bool = False
    place: tuple[Any, ...] = ()
    """What orders the groups of a day where a nano-dollar is left over."""
    gpu_us: int = 0
    figures: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    spread: int = 0
    """Share of the day's idle time, by work."""
    answers_by_prompt: list[tuple[int, int, int, int]] = field(default_factory=list)
    """For each row that answered: the tokens of its attempt's prompt, and its own answers, prompt and output tokens."""

    @property
    def document_nano(self) -> int:
        """What the atom adds to the cost of documents."""
        return self.figures["used"] + self.spread + self.figures["settled"] if self.document else 0


@dataclass(frozen=True, slots=True)
class RawBooks:
    """The atoms of a range of days, and the idle and billed nano-dollars of each day."""

    atoms: tuple[Atom, ...]
    idle: dict[str, int]
    billed: dict[str, int]
    requests: int


def rows_of(file: Path, sql: str) -> list[dict[str, Any]]:
    """Return the rows of a statement by the names of their columns.

    The connection is one of the library that the router uses: a second copy of SQLite in one process ends the locks of
    the first one, which may end the process (https://sqlite.org/howtocorrupt.html, 2.2.1).
    """
    with closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as database:
        cursor = database.cursor()
        cursor.row_trace = lambda traced, row: {
            name: value for (name, *_), value in zip(traced.get_description(), row, strict=True)
        }
        return list(cursor.execute(sql))


def raw_books(file: Path, zone: tzinfo, first: str, last: str) -> RawBooks:
    """Read the days from `first` to `last` (ISO dates in the zone, both included).

    All rent up to now must be on the books as rows.
    """
    rows = rows_of(file, "SELECT * FROM entries ORDER BY seq")
    prompts = {(r["request_id"], r["attempt_no"]): r["prompt_tokens"] for r in rows if r["kind"] == "charged"}
    for row in rows:
        row["attempt_prompt"] = prompts.get((row["request_id"], row["attempt_no"]), 0)
    booked = _Booked(rows, zone)
    atoms: dict[tuple[str, ...], Atom] = {}
    first_row: set[str] = set()
    requests = 0
    for row in rows:
        if row["kind"] not in ("charged", "adjusted"):
            continue
        is_first = row["kind"] == "charged" and row["request_id"] not in first_row
        if row["kind"] == "charged":
            first_row.add(row["request_id"])
        day = booked.day(row)
        if first <= day <= last:
            requests += is_first
            _add(atoms, day, row)
    holds = [_hold(booked.date(row["ts"]), row) for row in booked.open_holds()]
    rent = _rent(rows, booked, first, last)
    split = list(atoms.values())
    idle = {day: _split(nano, us, [a for a in split if a.local and a.keys["day"] == day]) for day, (nano, us) in rent}
    return RawBooks(
        atoms=(*split, *(hold for hold in holds if first <= hold.keys["day"] <= last)),
        idle=idle,
        billed={day: nano for day, (nano, _) in rent},
        requests=requests,
    )


class _Booked:
    """Finds the day on which a row counts."""

    def __init__(self, rows: Sequence[dict[str, Any]], zone: tzinfo) -> None:
        self._zone = zone
        self._holds = {(r["request_id"], r["attempt_no"]): r for r in rows if r["kind"] == "reserved"}
        self._closed = {(r["request_id"], r["attempt_no"]) for r in rows if r["kind"] in ("charged", "released")}

    def date(self, epoch_ms: int) -> str:
        return datetime.fromtimestamp(epoch_ms // 1000, UTC).astimezone(self._zone).date().isoformat()

    def day(self, row: dict[str, Any]) -> str:
        hold = self._holds.get((row["request_id"], row["attempt_no"]))
        return self.date(row["ts"] if hold is None or (row["local"] and not row["tariff_ref"]) else hold["ts"])

    def open_holds(self) -> Iterator[dict[str, Any]]:
        return (row for who, row in self._holds.items() if who not in self._closed)


def _keys(day: str, row: dict[str, Any]) -> dict[str, str]:
    names = ("backend", "provider", "model", "tier", "task", "decision")
    return {"day": day, "month": day[:7], "key": row["key_id"]} | {name: row[name] for name in names}


def _add(atoms: dict[tuple[str, ...], Atom], day: str, row: dict[str, Any]) -> None:
    where = (day, str(row["local"]), *(str(row[name]) for name in GROUP), row["key_id"])
    place = tuple(row[name] for name in GROUP)
    atom = atoms.setdefault(where, Atom(_keys(day, row), bool(row["local"]), bool(row["document"]), place))
    answered, charged = row["status"] in _ANSWERED and row["backend"] != "review", row["kind"] == "charged"
    atom.figures["attempts"] += charged
    if answered:
        atom.figures["answers"] += charged
        atom.figures["documents"] += charged and atom.document
        for name in ("prompt_tokens", "completion_tokens"):
            atom.figures[name] += row[name]
        sizes = (int(charged), row["prompt_tokens"], row["completion_tokens"])
        atom.answers_by_prompt.append((row["attempt_prompt"], *sizes))
    atom.gpu_us += row["gpu_us"]
    if not atom.local:
        atom.figures["cloud"] += row["amount_nano"]
        atom.figures["settled"] += row["amount_nano"]


def _hold(day: str, row: dict[str, Any]) -> Atom:
    atom = Atom(_keys(day, row))
    atom.figures["cloud"] = row["reserved_nano"]
    return atom


def _rent(rows: Sequence[dict[str, Any]], booked: _Booked, first: str, last: str) -> list[tuple[str, tuple[int, int]]]:
    """Return the nano-dollars and the GPU microseconds of each day in the range, those with work only included."""
    days: dict[str, tuple[int, int]] = {}
    for row in rows:
        worked = row["kind"] in ("charged", "adjusted") and row["local"]
        # A correction says in its decision what it corrects: the bill, or the idle part of a closed day.
        rented = "gpu_hour" in (row["kind"], row["decision"])
        if not rented and not worked:
            continue
        day = booked.day(row) if worked else booked.date(row["ts"])
        nano, us = days.get(day, (0, 0))
        days[day] = (nano, us) if worked else (nano + row["amount_nano"], us + row["gpu_us"])
    return [(day, amounts) for day, amounts in sorted(days.items()) if first <= day <= last]


def _split(nano: int, rented_us: int, local: Sequence[Atom]) -> int:
    """Share a day's bill over its local atoms; return the idle part."""
    groups: dict[tuple[Any, ...], list[Atom]] = defaultdict(list)
    for atom in local:
        groups[atom.place].append(atom)
    order = sorted(groups)
    # A correction may leave a key with less than no work; the group still counts as a whole.
    shares = [max(0, sum(atom.gpu_us for atom in groups[name])) for name in order]
    work = sum(shares)
    if not rented_us or not nano:
        idle = nano
        used = [0] * len(order)
    else:
        used, idle = _largest_remainder(nano, [*shares, max(0, rented_us - work)])
    spread = _running(idle if work and rented_us else 0, shares)
    for name, used_nano, idle_nano in zip(order, used, spread, strict=True):
        keys = sorted(groups[name], key=lambda atom: atom.keys["key"])
        by_key = [max(0, atom.gpu_us) for atom in keys]
        for atom, nano_used, nano_idle in zip(
            keys, _running(used_nano, by_key), _running(idle_nano, by_key), strict=True
        ):
            atom.figures["used"] += nano_used
            atom.spread += nano_idle
    return idle


def _largest_remainder(nano: int, shares: Sequence[int]) -> tuple[list[int], int]:
    whole = sum(shares)
    exact = [Fraction(nano * share, whole) for share in shares]
    parts = [int(part) for part in exact]
    places = sorted(range(len(shares)), key=lambda at: (parts[at] - exact[at], at))
    for at in places[: nano - sum(parts)]:
        parts[at] += 1
    return parts[:-1], parts[-1]


def _running(nano: int, shares: Sequence[int]) -> list[int]:
    whole, so_far, given = sum(shares), 0, 0
    parts = []
    for share in shares:
        so_far += share
        until = nano * so_far // whole if whole else nano
        parts.append(until - given)
        given = until
    return parts
