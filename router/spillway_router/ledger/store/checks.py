"""SQL of `spillway ledger verify` that SQLite and PostgreSQL share: each statement asks for the rows that break a rule,
or sums up rows so that they can be compared with what the database keeps beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

from spillway_router.ledger.calendar import DAY_MS
from spillway_router.ledger.entries import ANSWERED, SIGNED
from spillway_router.ledger.interface import AttemptRows, Checks, Spent, StoredBalance
from spillway_router.ledger.posting import HoldKey, OpenHold
from spillway_router.ledger.records import Balance, BalanceKey, Group
from spillway_router.ledger.store.statements import BALANCES
from spillway_router.ledger.store.sums import ADDED, BOOKED_MS, SAME_GROUP, SLOT_MS, SLOTS_PER_DAY, SUMS

HOUR_MS = 3_600_000
_ANSWERED = ", ".join(f"'{status}'" for status in ANSWERED)
_SIGNED = ", ".join(f"'{kind}'" for kind in SIGNED)
_COUNTS = (
    "amount_nano",
    "reserved_nano",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "gpu_us",
    "cache_write_tokens",
    "cache_write_long_tokens",
    "billed_us",
    "estimated_nano",
    "at_most_nano",
    "saved_nano",
    "took_ms",
)

NEGATIVE = (
    f"SELECT seq, kind, request_id, attempt_no FROM entries WHERE kind NOT IN ({_SIGNED})"  # noqa: S608
    f" AND ({' OR '.join(f'{name} < 0' for name in _COUNTS)}) ORDER BY seq"
)

# Attempts that were closed more than once, closed before they were opened, opened and not closed, or charged above
# their hold.
_CLOSING = "CASE WHEN kind IN ('charged', 'released') THEN seq END"
_OPENING = "CASE WHEN kind = 'reserved' THEN seq END"
_CHARGED = "max(CASE WHEN kind = 'charged' THEN amount_nano END)"
_HELD = "max(CASE WHEN kind = 'reserved' THEN reserved_nano END)"
ATTEMPTS = (
    f"SELECT request_id, attempt_no, count({_CLOSING}), max({_OPENING}), max({_CLOSING}), {_CHARGED}, {_HELD}"  # noqa: S608
    " FROM entries"
    f" GROUP BY request_id, attempt_no HAVING count({_CLOSING}) > 1 OR max({_OPENING}) > min({_CLOSING})"
    f" OR (max({_OPENING}) IS NOT NULL AND count({_CLOSING}) = 0) OR {_CHARGED} > {_HELD}"
)

ANSWERED_TWICE = (
    "SELECT DISTINCT request_id FROM entries AS late WHERE kind = 'charged' AND attempt_no <> 1"  # noqa: S608
    f" AND status IN ({_ANSWERED}) AND EXISTS (SELECT 1 FROM entries AS other"
    " WHERE other.request_id = late.request_id AND other.kind = 'charged' AND other.attempt_no <> late.attempt_no"
    f" AND other.status IN ({_ANSWERED})) ORDER BY request_id"
)

# What the attempts of an hour, backend, key, tier and user spent and still hold, in the order of the days.
_MOVED_HOUR = f"({BOOKED_MS}) / {HOUR_MS}"
_KEPT = "CASE kind WHEN 'charged' THEN reserved_nano ELSE -reserved_nano END"
_MOVING = "FROM entries AS row WHERE kind IN ('charged', 'adjusted') AND (amount_nano <> 0 OR reserved_nano <> 0)"
SPENT = (
    f"SELECT {_MOVED_HOUR} AS hour, backend, key_id, tier, user_id, sum(amount_nano), sum({_KEPT}) {_MOVING}"
    f" GROUP BY {_MOVED_HOUR}, backend, key_id, tier, user_id ORDER BY 1"
)
# The same row by row, for a database that would have to sort the rows to add them up.
MOVES = f"SELECT {_MOVED_HOUR}, backend, key_id, tier, user_id, amount_nano, {_KEPT} {_MOVING}"

SHORT_BALANCES = (
    "SELECT scope, period, start_ms, spent_nano, reserved_nano FROM balances"
    " WHERE period <> 'month' AND (spent_nano <> 0 OR reserved_nano <> 0) ORDER BY start_ms"
)
MONTH_BALANCES = SHORT_BALANCES.replace("period <> 'month'", "period = 'month'")

HOLDS = "SELECT request_id, attempt_no, reserved_nano, ts, backend, key_id, tier, router_id, user_id FROM holds"

RENT = (
    "SELECT ts / 86400000, sum(CASE WHEN 'gpu_hour' IN (kind, decision) THEN amount_nano ELSE 0 END),"
    " sum(CASE WHEN 'idle' IN (kind, decision) THEN amount_nano ELSE 0 END)"
    " FROM entries WHERE kind IN ('gpu_hour', 'idle', 'fixed_adjusted') GROUP BY ts / 86400000 ORDER BY 1"
)

# The running sums, computed again from the rows that they say they contain, into the temporary table fresh_sums.
_VALUES = ", ".join(SUMS)
ROWS_AGAIN = (
    f"SELECT slot, known.id AS group_id, key_id, length, {_VALUES}"  # noqa: S608
    " FROM ({rows} AND row.seq <= (SELECT summed_seq FROM {marks})) AS row"
    f" {{join}} JOIN sum_groups AS known ON {SAME_GROUP}"
)
_NAME = " || '/' || ".join(f"known.{name}" for name in Group._fields if name not in ("local", "document"))
_DIFFERENCES = (
    f"WITH again AS MATERIALIZED (SELECT {{at}} AS at, group_id{{key}}, {ADDED}"  # noqa: S608
    f" FROM fresh_sums WHERE {{where}} GROUP BY {{at}}, group_id{{key}}),"
    f" kept AS (SELECT {{kept_at}} AS at, group_id{{key}}, {_VALUES} FROM {{table}}),"
    " differing AS (SELECT at, group_id FROM (SELECT * FROM again EXCEPT SELECT * FROM kept) AS missing"
    " UNION SELECT at, group_id FROM (SELECT * FROM kept EXCEPT SELECT * FROM again) AS extra)"
    f" SELECT at * {{length_ms}}, coalesce({_NAME}, '?') FROM differing LEFT JOIN sum_groups AS known"
    " ON known.id = differing.group_id ORDER BY 1, 2"
)
SLOT_DIFFERENCES = _DIFFERENCES.format(
    at="slot", kept_at="slot", key="", table="slot_sums", length_ms=SLOT_MS, where="true"
)
LENGTH_DIFFERENCES = _DIFFERENCES.format(
    at="slot", kept_at="slot", key=", length", table="length_sums", length_ms=SLOT_MS, where="length <> 0"
)
KEY_DIFFERENCES = _DIFFERENCES.format(
    at=f"slot / {SLOTS_PER_DAY}", kept_at="day", key=", key_id", table="key_sums", length_ms=DAY_MS, where="true"
)
# Whether there is any difference, which takes half the time: how many sums there should be, how many of them are kept,
# how many of these are wrong, and how many are kept in all.
_NAMED = ", ".join(f"sum({name}) AS {name}" for name in SUMS)
_WRONG = " OR ".join(f"again.{name} <> kept.{name}" for name in SUMS)
_COMPARED = (
    f"SELECT count(*), count(kept.group_id), count(CASE WHEN {_WRONG} THEN 1 END), (SELECT count(*) FROM {{table}})"  # noqa: S608
    f" FROM (SELECT {{at}} AS {{kept_at}}, group_id{{key}}, {_NAMED} FROM fresh_sums WHERE {{where}}"
    f" GROUP BY {{at}}, group_id{{key}}) AS again LEFT JOIN {{table}} AS kept ON kept.{{kept_at}} = again.{{kept_at}}"
    " AND kept.group_id = again.group_id{same}"
)
SLOTS_COMPARED = _COMPARED.format(at="slot", kept_at="slot", key="", table="slot_sums", where="true", same="")
LENGTHS_COMPARED = _COMPARED.format(
    at="slot",
    kept_at="slot",
    key=", length",
    table="length_sums",
    where="length <> 0",
    same=" AND kept.length = again.length",
)
KEYS_COMPARED = _COMPARED.format(
    at=f"slot / {SLOTS_PER_DAY}",
    kept_at="day",
    key=", key_id",
    table="key_sums",
    where="true",
    same=" AND kept.key_id = again.key_id",
)
_KEPT_SUMS = (
    (SLOTS_COMPARED, SLOT_DIFFERENCES),
    (KEYS_COMPARED, KEY_DIFFERENCES),
    (LENGTHS_COMPARED, LENGTH_DIFFERENCES),
)

_Query = Callable[[str], Iterable[tuple[Any, ...]]]


class SqlChecks(Checks):
    """The checks of a SQL database, whose `query` runs a statement in one snapshot.

    `sum_again` fills the temporary table fresh_sums with ROWS_AGAIN. `moves` is MOVES or SPENT.
    """

    def __init__(self, query: _Query, sum_again: Callable[[], None], moves: str = SPENT) -> None:
        self._query = query
        self._sum_again = sum_again
        self._moves = moves

    def negative_rows(self) -> Iterator[tuple[int, str]]:
        for seq, kind, request_id, attempt_no in self._query(NEGATIVE):
            yield seq, f"{kind} of attempt {attempt_no} of {request_id}"

    def odd_attempts(self) -> Iterator[AttemptRows]:
        return map(AttemptRows._make, self._query(ATTEMPTS))

    def answered_twice(self) -> Iterator[str]:
        return (row[0] for row in self._query(ANSWERED_TWICE))

    def spent(self) -> Iterator[Spent]:
        for *whose, nano, kept_nano in self._query(SPENT):
            yield Spent._make((*whose, int(nano), int(kept_nano)))

    def short_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        return (((row[0], row[1], row[2]), Balance(*row[3:])) for row in self._query(SHORT_BALANCES))

    def month_balances(self) -> Iterator[tuple[BalanceKey, Balance]]:
        return (((row[0], row[1], row[2]), Balance(*row[3:])) for row in self._query(MONTH_BALANCES))

    # Of every row that moves money, so without making values of them.

    def moves(self) -> Iterable[Spent]:
        return cast("Iterable[Spent]", self._query(self._moves))

    def balances(self) -> Iterable[StoredBalance]:
        return cast("Iterable[StoredBalance]", self._query(BALANCES))

    def holds(self) -> Mapping[HoldKey, OpenHold]:
        return {(row[0], row[1]): OpenHold._make(row[2:]) for row in self._query(HOLDS)}

    def rent(self) -> Iterator[tuple[int, int, int]]:
        for day, billed_nano, idle_nano in self._query(RENT):
            yield day, int(billed_nano), int(idle_nano)

    def wrong_sums(self) -> Iterator[tuple[int, str]]:
        self._sum_again()
        for compared, differences in _KEPT_SUMS:
            ((expected, there, wrong, kept),) = self._query(compared)
            if wrong or not expected == there == kept:
                for start_ms, name in self._query(differences):
                    yield int(start_ms), name
