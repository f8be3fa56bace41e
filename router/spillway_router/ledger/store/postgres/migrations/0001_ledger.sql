-- All tables live in the schema `spillway`. Text compares byte by byte (COLLATE "C"): reports come out in the same
-- order on every machine, and no update of the system's locales can break an index.

-- Append-only rows; the meaning of each column is in entries.py. seq is the order of writing without gaps, link the
-- hash chain; both are given by the writer under the commit lock.
CREATE TABLE entries (
    seq               bigint  PRIMARY KEY CHECK (seq > 0),
    kind              text    COLLATE "C" NOT NULL
                              CHECK (kind IN ('reserved', 'charged', 'released', 'adjusted', 'gpu_hour', 'idle')),
    request_id        text    COLLATE "C" NOT NULL CHECK (request_id <> ''),
    attempt_no        bigint  NOT NULL CHECK (attempt_no >= 0),
    ts                bigint  NOT NULL,
    backend           text    COLLATE "C" NOT NULL,
    provider          text    COLLATE "C" NOT NULL,
    model             text    COLLATE "C" NOT NULL,
    local             boolean NOT NULL,
    key_id            text    COLLATE "C" NOT NULL,
    tier              text    COLLATE "C" NOT NULL,
    decision          text    COLLATE "C" NOT NULL,
    reasons           text    COLLATE "C" NOT NULL,
    status            text    COLLATE "C" NOT NULL,
    prompt_tokens     bigint  NOT NULL,
    completion_tokens bigint  NOT NULL,
    cached_tokens     bigint  NOT NULL,
    reasoning_tokens  bigint  NOT NULL,
    gpu_us            bigint  NOT NULL,
    amount_nano       bigint  NOT NULL CHECK (amount_nano >= 0 OR kind = 'adjusted'),
    reserved_nano     bigint  NOT NULL CHECK (reserved_nano >= 0),
    tariff_ref        text    COLLATE "C" NOT NULL,
    confidence        double precision,
    task              text    COLLATE "C" NOT NULL,
    document          boolean NOT NULL,
    router_id         text    COLLATE "C" NOT NULL,
    link              bytea   NOT NULL CHECK (length(link) = 32),
    UNIQUE (request_id, attempt_no, kind)
);

CREATE INDEX entries_ts ON entries (ts);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'ledger entries are append-only' USING ERRCODE = 'integrity_constraint_violation';
END
$$;

CREATE TRIGGER entries_are_never_changed BEFORE UPDATE OR DELETE ON entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_are_never_emptied BEFORE TRUNCATE ON entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Open reservations: a projection of the entries, kept in the transaction that writes these.
CREATE TABLE holds (
    request_id    text   COLLATE "C" NOT NULL,
    attempt_no    bigint NOT NULL,
    reserved_nano bigint NOT NULL CHECK (reserved_nano >= 0),
    ts            bigint NOT NULL,
    backend       text   COLLATE "C" NOT NULL,
    key_id        text   COLLATE "C" NOT NULL,
    tier          text   COLLATE "C" NOT NULL,
    router_id     text   COLLATE "C" NOT NULL,
    PRIMARY KEY (request_id, attempt_no)
);

-- Spent and held nano-dollars per scope and period: a projection too. Few rows that change often: room in each page
-- lets PostgreSQL replace them in place.
CREATE TABLE balances (
    scope         text   COLLATE "C" NOT NULL,
    period        text   COLLATE "C" NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    start_ms      bigint NOT NULL,
    spent_nano    bigint NOT NULL,
    reserved_nano bigint NOT NULL,
    PRIMARY KEY (scope, period, start_ms)
) WITH (fillfactor = 50);

-- When each router was last heard of, to find reservations that nobody will settle any more.
CREATE TABLE routers (
    router_id text   COLLATE "C" PRIMARY KEY,
    alive_ms  bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE rentals (
    id                  text   COLLATE "C" PRIMARY KEY CHECK (id <> ''),
    gpu                 text   COLLATE "C" NOT NULL,
    count               bigint NOT NULL CHECK (count > 0),
    price_nano_per_hour bigint NOT NULL CHECK (price_nano_per_hour >= 0),
    kind                text   COLLATE "C" NOT NULL CHECK (kind IN ('reserved', 'interruptible')),
    started_ms          bigint NOT NULL,
    stopped_ms          bigint CHECK (stopped_ms >= started_ms),
    source              text   COLLATE "C" NOT NULL
);

CREATE TABLE api_keys (
    id            text    COLLATE "C" PRIMARY KEY,
    name          text    COLLATE "C" NOT NULL,
    role          text    COLLATE "C" NOT NULL CHECK (role IN ('inference', 'viewer', 'admin')),
    tier          text    COLLATE "C" NOT NULL,
    privacy       text    COLLATE "C" NOT NULL CHECK (privacy IN ('any', 'local-only')),
    may_route     boolean NOT NULL,
    created       bigint  NOT NULL,
    revoked       bigint,
    secret_sha256 bytea   NOT NULL CHECK (length(secret_sha256) = 32)
);

-- One row of small facts that change: so that readers notice changed keys, and a full disk shows before money moves.
CREATE TABLE marks (
    id            integer PRIMARY KEY CHECK (id = 1),
    keys_revision bigint  NOT NULL,
    probed        bigint  NOT NULL
) WITH (fillfactor = 50);

INSERT INTO marks (id, keys_revision, probed) VALUES (1, 0, 0);
