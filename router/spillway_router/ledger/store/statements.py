"""SQL statements on entries and balances that SQLite and PostgreSQL share, with ? for values.

Only column names from entries.py become part of the text; values are always bound.
"""

from __future__ import annotations

from spillway_router.ledger.entries import COLUMNS

_COLUMNS = ",".join(COLUMNS)


HEAD = "SELECT seq, link FROM entries ORDER BY seq DESC LIMIT 1"

BALANCE = "SELECT spent_nano, reserved_nano FROM balances WHERE scope = ? AND period = ? AND start_ms = ?"

BALANCES = (
    "SELECT scope, period, start_ms, spent_nano, reserved_nano FROM balances"
    " WHERE spent_nano <> 0 OR reserved_nano <> 0"
)

ENTRIES_OF = f"SELECT {_COLUMNS} FROM entries WHERE request_id = ? ORDER BY seq"  # noqa: S608

# The index of request ids holds the rows of a request side by side, and newer requests behind older ones.
ENTRIES_BEFORE = (
    f"SELECT {_COLUMNS} FROM entries WHERE request_id >= ? AND request_id < ?"  # noqa: S608
    " ORDER BY request_id DESC, attempt_no, kind LIMIT ?"
)

ADJUSTED = f"SELECT {_COLUMNS} FROM entries WHERE kind = 'adjusted' AND ts >= ? AND ts < ? ORDER BY seq"  # noqa: S608

LINKED_AFTER = f"SELECT seq,{_COLUMNS},link FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608

RENTED = (
    "SELECT coalesce(sum(amount_nano), 0), coalesce(sum(gpu_us), 0) FROM entries"
    " WHERE ts >= ? AND ts < ? AND kind = 'gpu_hour'"
)

CORRECTED = (
    "SELECT coalesce(sum(amount_nano), 0), coalesce(sum(gpu_us), 0) FROM entries"
    " WHERE ts >= ? AND ts < ? AND kind = 'fixed_adjusted' AND decision = 'gpu_hour'"
)

KEYS_REVISION = "SELECT keys_revision FROM marks"

KEYS_CHANGED = "UPDATE marks SET keys_revision = keys_revision + 1"
