"""SQL statements for PostgreSQL only. Only column names from entries.py become part of the text; values are bound.

Many rows travel as one JSON array of arrays. orjson writes it in a fraction of the time that one placeholder per value
takes, the text of the statement is the same for any number of rows (so the server plans it once), and the hash chain is
computed over the same bytes. Numbers keep all their digits, because PostgreSQL's JSON numbers are decimals.
"""

from __future__ import annotations

from spillway_router.ledger.entries import BASE, COLUMNS

_TYPES = {
    "attempt_no": "bigint",
    "ts": "bigint",
    "local": "boolean",
    "prompt_tokens": "bigint",
    "completion_tokens": "bigint",
    "cached_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "gpu_us": "bigint",
    "amount_nano": "bigint",
    "reserved_nano": "bigint",
    "confidence": "double precision",
    "document": "boolean",
    "cache_write_tokens": "bigint",
    "cache_write_long_tokens": "bigint",
    "billed_us": "bigint",
    "estimated_nano": "bigint",
    "at_most_nano": "bigint",
    "saved_nano": "bigint",
    "took_ms": "bigint",
}
_COLUMNS = ",".join(COLUMNS)
_ROW_COLUMNS = ",".join(f"row.{column}" for column in COLUMNS)


def _fields(*types: str) -> str:
    """Return SQL for the elements of the JSON array `j` as columns of these types."""
    return ",".join(f"(j->>{at})::{kind}" for at, kind in enumerate(types))


def _row_fields() -> str:
    """Return SQL for the elements of a row in the JSON array `j`, which may lack the columns from BASE on."""
    fields = []
    for at, column in enumerate(COLUMNS):
        field = f"(j->>{at})::{_TYPES.get(column, 'text')}"
        fields.append(field if at < BASE else f"coalesce({field}, {'0' if column in _TYPES else repr('')})")
    return ",".join(fields)


# The commit. Its lock comes first and in a statement of its own, so that in READ COMMITTED the statements after it see
# everything that was committed before. The number is arbitrary and the same for all routers.

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
LOCK = "SELECT pg_advisory_xact_lock(7310014835120411469)"

STORED = (
    f"SELECT {_ROW_COLUMNS} FROM jsonb_array_elements(%s::jsonb) AS j JOIN entries AS row"  # noqa: S608
    " ON row.request_id = j->>0 AND row.attempt_no = (j->>1)::bigint AND row.kind = j->>2"
)

# Per attempt, its open hold, or else whether it is closed already. LIMIT keeps the planner from reading all closed rows
# into a hash, as it does for EXISTS.
CLOSING = """
SELECT j->>0, (j->>1)::bigint, hold.reserved_nano, hold.ts, hold.backend, hold.key_id, hold.tier, hold.router_id,
       hold.user_id,
       CASE WHEN hold.ts IS NULL THEN (
           SELECT true FROM entries AS done WHERE done.request_id = j->>0 AND done.attempt_no = (j->>1)::bigint
              AND done.kind IN ('charged', 'released') LIMIT 1)
       END
  FROM jsonb_array_elements(%s::jsonb) AS j
  LEFT JOIN holds AS hold ON hold.request_id = j->>0 AND hold.attempt_no = (j->>1)::bigint
"""

RESERVED_TS = """
SELECT row.request_id, row.attempt_no, row.ts
  FROM jsonb_array_elements(%s::jsonb) AS j JOIN entries AS row
    ON row.request_id = j->>0 AND row.attempt_no = (j->>1)::bigint AND row.kind = 'reserved'
"""

BALANCES_OF = """
SELECT b.scope, b.period, b.start_ms, b.spent_nano, b.reserved_nano
  FROM jsonb_array_elements(%s::jsonb) AS j JOIN balances AS b
    ON b.scope = j->>0 AND b.period = j->>1 AND b.start_ms = (j->>2)::bigint
"""

# Values: the seq before the first row, the concatenated links, and the rows.
INSERT = (
    f"INSERT INTO entries (seq,{_COLUMNS},link)"  # noqa: S608
    f" SELECT %s::bigint + n,{_row_fields()},"
    " substring(%s::bytea FROM (n * 32 - 31)::integer FOR 32)"
    " FROM jsonb_array_elements(%s::jsonb) WITH ORDINALITY AS t (j, n)"
)

OPEN_HOLDS = (
    f"INSERT INTO holds SELECT {_fields('text', 'bigint', 'bigint', 'bigint', *['text'] * 5)}"  # noqa: S608
    " FROM jsonb_array_elements(%s::jsonb) AS j"
)

CLOSE_HOLDS = (
    "DELETE FROM holds USING jsonb_array_elements(%s::jsonb) AS j"
    " WHERE request_id = j->>0 AND attempt_no = (j->>1)::bigint"
)

MOVE_BALANCES = (
    f"INSERT INTO balances AS b SELECT {_fields('text', 'text', 'bigint', 'bigint', 'bigint')}"  # noqa: S608
    " FROM jsonb_array_elements(%s::jsonb) AS j ON CONFLICT (scope, period, start_ms) DO UPDATE"
    " SET spent_nano = b.spent_nano + excluded.spent_nano, reserved_nano = b.reserved_nano + excluded.reserved_nano"
)

PROBE = "UPDATE marks SET probed = %s"

# Reports.

# Rows are written almost in the order of ts, so a time range is a range of seq that contains few other rows.
SEQS_BETWEEN = (
    "WITH found AS MATERIALIZED (SELECT seq FROM entries WHERE ts >= %s AND ts < %s)"
    " SELECT min(seq), max(seq) FROM found"
)

# Reading by seq with a limit keeps no transaction open for long, however many rows there are. `ts + 0` keeps the
# planner from sorting the whole time range again for each chunk.
ENTRIES_AFTER = (
    f"SELECT seq,{_COLUMNS} FROM entries"  # noqa: S608
    " WHERE seq > %s AND seq <= %s AND ts + 0 >= %s AND ts + 0 < %s ORDER BY seq LIMIT %s"
)

_HELD = (
    f"SELECT {_ROW_COLUMNS} FROM holds AS hold JOIN entries AS row"  # noqa: S608
    " ON row.request_id = hold.request_id AND row.attempt_no = hold.attempt_no AND row.kind = 'reserved'"
)

OPEN_RESERVATIONS = f"{_HELD} WHERE hold.ts >= %s AND hold.ts < %s ORDER BY row.seq"

ORPHANS = (
    f"{_HELD} LEFT JOIN routers ON routers.router_id = hold.router_id"
    " WHERE greatest(hold.ts, routers.alive_ms) <= %s ORDER BY row.seq"
)

ALIVE = (
    "INSERT INTO routers (router_id, alive_ms) VALUES (%s, %s)"
    " ON CONFLICT (router_id) DO UPDATE SET alive_ms = greatest(routers.alive_ms, excluded.alive_ms)"
)

# Whoever appends an act waits for this lock, so that the chain has no forks.
LOCK_ACTS = "LOCK TABLE acts IN SHARE ROW EXCLUSIVE MODE"
