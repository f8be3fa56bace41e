"""The ledger's questions in SQL. Only column names of entries.py are put into the text; values are always
bound."""

from __future__ import annotations

from spillway_router.core.budget import check_scope
from spillway_router.ledger.entries import COLUMNS

_COLUMNS = ",".join(COLUMNS)
_SCOPE_COLUMNS = {"backend": "backend", "key": "key_id", "tier": "tier"}

STORED = f"SELECT {_COLUMNS} FROM entries WHERE request_id = ? AND attempt_no = ? AND kind = ?"  # noqa: S608

ENTRIES_OF = f"SELECT {_COLUMNS} FROM entries WHERE request_id = ? ORDER BY seq"  # noqa: S608

# By seq and a limit, so that a reader of many rows never keeps a snapshot open for long.
ENTRIES_AFTER = (
    f"SELECT seq,{_COLUMNS} FROM entries NOT INDEXED"  # noqa: S608
    " WHERE seq > ? AND ts >= ? AND ts < ? ORDER BY seq LIMIT ?"
)

_OPEN = (
    "NOT EXISTS (SELECT 1 FROM entries AS done WHERE done.request_id = hold.request_id"
    " AND done.attempt_no = hold.attempt_no AND done.kind IN ('charged', 'released'))"
)

OPEN_RESERVATIONS = (
    f"SELECT {_COLUMNS} FROM entries AS hold"  # noqa: S608
    f" WHERE kind = 'reserved' AND ts >= ? AND ts < ? AND {_OPEN} ORDER BY seq"
)

# A charge is never earlier than its hold, so rows before :start can't belong to the period. Its end can't be cut the
# same way: a call reserved just before midnight is charged after it and still belongs to the day before.
BALANCE = f"""
SELECT
  (SELECT coalesce(sum(row.amount_nano), 0)
     FROM entries AS row LEFT JOIN entries AS hold
       ON hold.request_id = row.request_id AND hold.attempt_no = row.attempt_no AND hold.kind = 'reserved'
    WHERE row.ts >= :start AND row.kind IN ('charged', 'adjusted') AND row.amount_nano <> 0
      AND coalesce(hold.ts, row.ts) >= :start AND coalesce(hold.ts, row.ts) < :end AND {{scope}}),
  (SELECT coalesce(sum(row.reserved_nano), 0)
     FROM entries AS row
    WHERE row.kind = 'reserved' AND row.ts >= :start AND row.ts < :end AND {{scope}}
      AND {_OPEN.replace("hold.", "row.")})
"""  # noqa: S608

TOTALS = """
SELECT local, decision, backend, provider, model, status, document,
       sum(kind = 'charged'), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens),
       sum(reasoning_tokens), sum(CASE WHEN kind = 'charged'
                THEN 2 * prompt_tokens * completion_tokens + completion_tokens * completion_tokens ELSE 0
                END),
       sum(gpu_us), sum(amount_nano)
  FROM entries
 WHERE ts >= ? AND ts < ? AND kind IN ('charged', 'adjusted')
 GROUP BY local, decision, backend, provider, model, status, document
 ORDER BY local DESC, decision, backend, provider, model, status, document
"""

REQUESTS = "SELECT count(DISTINCT request_id) FROM entries WHERE ts >= ? AND ts < ? AND kind = 'charged'"

RENTED = (
    "SELECT coalesce(sum(amount_nano), 0), coalesce(sum(gpu_us), 0) FROM entries"
    " WHERE ts >= ? AND ts < ? AND kind = 'gpu_hour'"
)

KEYS = (
    "SELECT id, name, role, tier, privacy, may_route, created, revoked, secret_sha256"
    " FROM api_keys ORDER BY created, id"
)

KEYS_REVISION = "SELECT keys_revision FROM marks"


def scope_filter(scope: str) -> tuple[str, dict[str, str]]:
    """SQL condition on table alias `row` and its bound values for a budget scope. Raises BudgetError if
    unknown."""
    check_scope(scope)
    if scope == "all":
        return "TRUE", {}
    kind, _, name = scope.partition(":")
    return f"row.{_SCOPE_COLUMNS[kind]} = :name", {"name": name}
