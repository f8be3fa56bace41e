"""The ledger's questions that SQLite and PostgreSQL are asked in the same words, with ? for values: sql_ledger.py asks
them. Only names of entries.py and base.py are put into the text; values are always bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from spillway_router.ledger.entries import COLUMNS
from spillway_router.ledger.records import KeyRecord, RentalRecord

KEY = tuple(f.name for f in fields(KeyRecord))
RENTAL = tuple(f.name for f in fields(RentalRecord))
"""Column names in the order of the records' fields."""
_COLUMNS = ",".join(COLUMNS)


def _insert(table: str, columns: Sequence[str]) -> str:
    """INSERT of one row that gives its id, or nothing if that is taken."""
    places = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places}) ON CONFLICT DO NOTHING RETURNING id"  # noqa: S608


HEAD = "SELECT seq, link FROM entries ORDER BY seq DESC LIMIT 1"

BALANCE = "SELECT spent_nano, reserved_nano FROM balances WHERE scope = ? AND period = ? AND start_ms = ?"

BALANCES = (
    "SELECT scope, period, start_ms, spent_nano, reserved_nano FROM balances"
    " WHERE spent_nano <> 0 OR reserved_nano <> 0"
)

ENTRIES_OF = f"SELECT {_COLUMNS} FROM entries WHERE request_id = ? ORDER BY seq"  # noqa: S608

LINKED_AFTER = f"SELECT seq,{_COLUMNS},link FROM entries WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608

REQUESTS = "SELECT count(DISTINCT request_id) FROM entries WHERE ts >= ? AND ts < ? AND kind = 'charged'"

RENTED = (
    "SELECT coalesce(sum(amount_nano), 0), coalesce(sum(gpu_us), 0) FROM entries"
    " WHERE ts >= ? AND ts < ? AND kind = 'gpu_hour'"
)

ADD_RENTAL = _insert("rentals", RENTAL)

RENTALS = (
    f"SELECT {', '.join(RENTAL)} FROM rentals"  # noqa: S608
    " WHERE started_ms < ? AND (stopped_ms IS NULL OR stopped_ms > ?) ORDER BY started_ms, id"
)

STOP_RENTAL = (
    "UPDATE rentals SET stopped_ms = CASE WHEN started_ms > ? THEN started_ms ELSE ? END"
    " WHERE id = ? AND stopped_ms IS NULL RETURNING id"
)

ADD_KEY = _insert("api_keys", KEY)

REVOKE_KEY = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL RETURNING id"

KEYS = f"SELECT {', '.join(KEY)} FROM api_keys ORDER BY created, id"  # noqa: S608

KEYS_REVISION = "SELECT keys_revision FROM marks"

KEYS_CHANGED = "UPDATE marks SET keys_revision = keys_revision + 1"
