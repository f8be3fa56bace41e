-- Who holds a reservation, and the hash chain over the rows (entries.py). Rows written before this have no link.
ALTER TABLE entries ADD COLUMN router_id TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN link BLOB NOT NULL DEFAULT x'' CHECK (length(link) IN (0, 32));

-- Open reservations, so that closing one, or finding those of a router that is gone, doesn't search the entries.
CREATE TABLE holds (
    request_id    TEXT    NOT NULL,
    attempt_no    INTEGER NOT NULL,
    reserved_nano INTEGER NOT NULL,
    ts            INTEGER NOT NULL,
    backend       TEXT    NOT NULL,
    key_id        TEXT    NOT NULL,
    tier          TEXT    NOT NULL,
    router_id     TEXT    NOT NULL,
    PRIMARY KEY (request_id, attempt_no)
) STRICT, WITHOUT ROWID;

INSERT INTO holds
SELECT request_id, attempt_no, reserved_nano, ts, backend, key_id, tier, router_id
  FROM entries AS hold
 WHERE kind = 'reserved'
   AND NOT EXISTS (SELECT 1 FROM entries AS done WHERE done.request_id = hold.request_id
                      AND done.attempt_no = hold.attempt_no AND done.kind IN ('charged', 'released'));

DROP INDEX entries_reserved_ts;

-- Nano-dollars spent and held per scope and period; posting.py says which entry moves which.
CREATE TABLE balances (
    scope         TEXT    NOT NULL,
    period        TEXT    NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    start_ms      INTEGER NOT NULL,
    spent_nano    INTEGER NOT NULL,
    reserved_nano INTEGER NOT NULL,
    PRIMARY KEY (scope, period, start_ms)
) STRICT, WITHOUT ROWID;

WITH moves (ts, backend, key_id, tier, spent, reserved) AS (
    SELECT coalesce((SELECT hold.ts FROM entries AS hold WHERE hold.request_id = row.request_id
                        AND hold.attempt_no = row.attempt_no AND hold.kind = 'reserved'), row.ts),
           backend, key_id, tier, amount_nano, 0
      FROM entries AS row WHERE kind IN ('charged', 'adjusted') AND amount_nano <> 0
    UNION ALL
    SELECT ts, backend, key_id, tier, 0, reserved_nano FROM holds
), scoped (scope, ts, spent, reserved) AS (
    SELECT 'all', ts, spent, reserved FROM moves
    UNION ALL SELECT 'backend:' || backend, ts, spent, reserved FROM moves WHERE backend <> ''
    UNION ALL SELECT 'key:' || key_id, ts, spent, reserved FROM moves WHERE key_id <> ''
    UNION ALL SELECT 'tier:' || tier, ts, spent, reserved FROM moves WHERE tier <> ''
), dated (scope, period, start_ms, spent, reserved) AS (
    SELECT scope, 'hour', ts / 3600000 * 3600000, spent, reserved FROM scoped
    UNION ALL SELECT scope, 'day', ts / 86400000 * 86400000, spent, reserved FROM scoped
    UNION ALL SELECT scope, 'month', unixepoch(ts / 1000, 'unixepoch', 'start of month') * 1000, spent, reserved
      FROM scoped
)
INSERT INTO balances SELECT scope, period, start_ms, sum(spent), sum(reserved) FROM dated GROUP BY 1, 2, 3;

-- When each router process was last heard of.
CREATE TABLE routers (
    router_id TEXT    PRIMARY KEY,
    seen_ms   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE rentals (
    id                  TEXT    PRIMARY KEY CHECK (id <> ''),
    gpu                 TEXT    NOT NULL,
    count               INTEGER NOT NULL CHECK (count >= 1),
    price_nano_per_hour INTEGER NOT NULL CHECK (price_nano_per_hour >= 0),
    kind                TEXT    NOT NULL CHECK (kind IN ('reserved', 'interruptible')),
    started_ms          INTEGER NOT NULL,
    stopped_ms          INTEGER CHECK (stopped_ms >= started_ms),
    source              TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
