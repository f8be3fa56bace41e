"""SQL statements for SQLite only. Only column names from entries.py become part of the text; values are bound."""

from __future__ import annotations

from spillway_router.ledger.entries import BASE, BEFORE_EXPERIMENT, BEFORE_SAVED, COLUMNS, CONFIDENCE, REST

_COLUMNS = ",".join(COLUMNS)

STORED = f"SELECT {_COLUMNS} FROM entries WHERE request_id = ? AND attempt_no = ? AND kind = ?"  # noqa: S608

# Rows are written almost in the order of ts, so a time range is a range of seq that contains few other rows.
SEQS_BETWEEN = "SELECT min(seq), max(seq) FROM entries INDEXED BY entries_ts WHERE ts >= ? AND ts < ?"

# Reading by seq with a limit keeps no snapshot open for long, however many rows there are.
ENTRIES_AFTER = (
    f"SELECT seq,{_COLUMNS} FROM entries NOT INDEXED"  # noqa: S608
    " WHERE seq > ? AND seq <= ? AND ts >= ? AND ts < ? ORDER BY seq LIMIT ?"
)


def _as_json(first: int, last: int) -> str:
    """Return SQL for the JSON array of the columns from `first` on, without the `last` one."""
    values = (
        f"json(iif({name} = 1, 'true', 'false'))" if name in ("local", "document") else name
        for name in COLUMNS[first:last]
    )
    return f"json_array({', '.join(values)})"


def _canonical(first: int) -> str:
    """Return SQL for the JSON array of the columns from `first` on that stand in a row's canonical JSON."""
    at_defaults = " AND ".join(f"{name} = {value!r}" for name, value in zip(COLUMNS[BASE:], REST, strict=True))
    return (
        f"CASE WHEN {at_defaults} THEN {_as_json(first, BASE)} WHEN experiment <> '' THEN"
        f" {_as_json(first, len(COLUMNS))} WHEN saved_nano <> 0 THEN {_as_json(first, BEFORE_EXPERIMENT)}"
        f" ELSE {_as_json(first, BEFORE_SAVED)} END"
    )


# SQLite and orjson write a number with a fraction differently, so a row that has one is returned in two parts, those
# before and after it.
CANONICAL_AFTER = (
    f"SELECT seq, CASE WHEN confidence IS NULL THEN {_canonical(0)} ELSE {_as_json(0, CONFIDENCE)} END,"  # noqa: S608
    f" link, kind = 'charged' AND tariff_ref <> '', kind = 'adjusted', confidence,"
    f" CASE WHEN confidence IS NOT NULL THEN {_canonical(CONFIDENCE + 1)} END"
    " FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"
)

_HELD = (
    f"SELECT {','.join('row.' + column for column in COLUMNS)} FROM holds CROSS JOIN entries AS row"  # noqa: S608
    " ON row.request_id = holds.request_id AND row.attempt_no = holds.attempt_no AND row.kind = 'reserved'"
)

OPEN_RESERVATIONS = f"{_HELD} WHERE holds.ts >= ? AND holds.ts < ? ORDER BY row.seq"

ORPHANS = (
    f"{_HELD} LEFT JOIN routers ON routers.router_id = holds.router_id"
    " WHERE max(holds.ts, coalesce(routers.seen_ms, holds.ts)) <= ? ORDER BY row.seq"
)

ALIVE = (
    "INSERT INTO routers (router_id, seen_ms) VALUES (?, ?)"
    " ON CONFLICT (router_id) DO UPDATE SET seen_ms = max(seen_ms, excluded.seen_ms)"
)

# {attempts}: rows of (request_id, attempt_no). CROSS JOIN makes SQLite keep the order of the tables, so that it looks
# each attempt up.
_OF_ATTEMPTS = "WITH attempts (request_id, attempt_no) AS (VALUES {attempts}) "

OPEN_HOLDS = (
    f"{_OF_ATTEMPTS}SELECT holds.* FROM attempts CROSS JOIN holds"  # noqa: S608
    " ON holds.request_id = attempts.request_id AND holds.attempt_no = attempts.attempt_no"
)

CLOSED = (
    f"{_OF_ATTEMPTS}SELECT row.request_id, row.attempt_no FROM attempts CROSS JOIN entries AS row"  # noqa: S608
    " ON row.request_id = attempts.request_id AND row.attempt_no = attempts.attempt_no"
    " AND row.kind IN ('charged', 'released')"
)

RESERVED_TS = (
    f"{_OF_ATTEMPTS}SELECT row.request_id, row.attempt_no, row.ts FROM attempts CROSS JOIN entries AS row"  # noqa: S608
    " ON row.request_id = attempts.request_id AND row.attempt_no = attempts.attempt_no AND row.kind = 'reserved'"
)

OPEN_HOLD = "INSERT INTO holds VALUES {rows}"

CLOSE_HOLD = "DELETE FROM holds WHERE (request_id, attempt_no) IN (VALUES {rows})"

MOVE_BALANCE = (
    "INSERT INTO balances VALUES {rows} ON CONFLICT (scope, period, start_ms) DO UPDATE"
    " SET spent_nano = spent_nano + excluded.spent_nano, reserved_nano = reserved_nano + excluded.reserved_nano"
)
