-- Append-only rows; the meaning of each column is in entries.py. seq is the order of writing.
CREATE TABLE entries (
    seq               INTEGER PRIMARY KEY,
    kind              TEXT    NOT NULL CHECK (kind IN ('reserved', 'charged', 'released', 'adjusted', 'gpu_hour', 'idle')),
    request_id        TEXT    NOT NULL CHECK (request_id <> ''),
    attempt_no        INTEGER NOT NULL CHECK (attempt_no >= 0),
    ts                INTEGER NOT NULL,
    backend           TEXT    NOT NULL,
    provider          TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    local             INTEGER NOT NULL CHECK (local IN (0, 1)),
    key_id            TEXT    NOT NULL,
    tier              TEXT    NOT NULL,
    decision          TEXT    NOT NULL,
    reasons           TEXT    NOT NULL,
    status            TEXT    NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    reasoning_tokens  INTEGER NOT NULL,
    gpu_us            INTEGER NOT NULL,
    amount_nano       INTEGER NOT NULL CHECK (amount_nano >= 0 OR kind = 'adjusted'),
    reserved_nano     INTEGER NOT NULL CHECK (reserved_nano >= 0),
    tariff_ref        TEXT    NOT NULL,
    confidence        REAL,
    task              TEXT    NOT NULL,
    document          INTEGER NOT NULL CHECK (document IN (0, 1)),
    UNIQUE (request_id, attempt_no, kind)
) STRICT;

CREATE INDEX entries_ts ON entries (ts);
CREATE INDEX entries_reserved_ts ON entries (ts) WHERE kind = 'reserved';

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are append-only');
END;

CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'ledger entries are append-only');
END;

CREATE TABLE api_keys (
    id            TEXT    PRIMARY KEY,
    name          TEXT    NOT NULL,
    role          TEXT    NOT NULL CHECK (role IN ('inference', 'viewer', 'admin')),
    tier          TEXT    NOT NULL,
    privacy       TEXT    NOT NULL CHECK (privacy IN ('any', 'local-only')),
    may_route     INTEGER NOT NULL CHECK (may_route IN (0, 1)),
    created       INTEGER NOT NULL,
    revoked       INTEGER,
    secret_sha256 BLOB    NOT NULL CHECK (length(secret_sha256) = 32)
) STRICT, WITHOUT ROWID;

-- One row of small facts that change: so that readers notice changed keys, and a full disk shows before money moves.
CREATE TABLE marks (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    keys_revision INTEGER NOT NULL,
    probed        INTEGER NOT NULL
) STRICT;

INSERT INTO marks (id, keys_revision, probed) VALUES (1, 0, 0);
