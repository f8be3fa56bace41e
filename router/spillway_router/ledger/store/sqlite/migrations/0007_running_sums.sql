-- Running sums of the rows up to summed_seq (store/sums.py); a router adds the rows of an older ledger bit by bit.
CREATE TABLE sum_groups (
    id       INTEGER PRIMARY KEY,
    local    INTEGER NOT NULL,
    decision TEXT    NOT NULL,
    backend  TEXT    NOT NULL,
    provider TEXT    NOT NULL,
    model    TEXT    NOT NULL,
    status   TEXT    NOT NULL,
    document INTEGER NOT NULL,
    tier     TEXT    NOT NULL,
    task     TEXT    NOT NULL,
    UNIQUE (local, decision, backend, provider, model, status, document, tier, task)
) STRICT;

CREATE TABLE slot_sums (
    slot              INTEGER NOT NULL,
    group_id          INTEGER NOT NULL REFERENCES sum_groups (id),
    attempts          INTEGER NOT NULL,
    requests          INTEGER NOT NULL,
    answers           INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    reasoning_tokens  INTEGER NOT NULL,
    kv_token_steps_x2 INTEGER NOT NULL,
    gpu_us            INTEGER NOT NULL,
    cost_nano         INTEGER NOT NULL,
    PRIMARY KEY (slot, group_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_sums (
    day               INTEGER NOT NULL,
    group_id          INTEGER NOT NULL REFERENCES sum_groups (id),
    key_id            TEXT    NOT NULL,
    attempts          INTEGER NOT NULL,
    requests          INTEGER NOT NULL,
    answers           INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    reasoning_tokens  INTEGER NOT NULL,
    kv_token_steps_x2 INTEGER NOT NULL,
    gpu_us            INTEGER NOT NULL,
    cost_nano         INTEGER NOT NULL,
    PRIMARY KEY (day, group_id, key_id)
) STRICT, WITHOUT ROWID;

ALTER TABLE marks ADD COLUMN summed_seq INTEGER NOT NULL DEFAULT 0;
