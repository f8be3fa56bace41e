-- Running sums of the rows up to summed_seq (store/sums.py); a router adds the rows of an older ledger bit by bit.
CREATE TABLE sum_groups (
    id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    local    boolean NOT NULL,
    decision text    COLLATE "C" NOT NULL,
    backend  text    COLLATE "C" NOT NULL,
    provider text    COLLATE "C" NOT NULL,
    model    text    COLLATE "C" NOT NULL,
    status   text    COLLATE "C" NOT NULL,
    document boolean NOT NULL,
    tier     text    COLLATE "C" NOT NULL,
    task     text    COLLATE "C" NOT NULL,
    UNIQUE (local, decision, backend, provider, model, status, document, tier, task)
);

CREATE TABLE slot_sums (
    slot              bigint NOT NULL,
    group_id          bigint NOT NULL REFERENCES sum_groups (id),
    attempts          bigint NOT NULL,
    requests          bigint NOT NULL,
    answers           bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    reasoning_tokens  bigint NOT NULL,
    kv_token_steps_x2 bigint NOT NULL,
    gpu_us            bigint NOT NULL,
    cost_nano         bigint NOT NULL,
    PRIMARY KEY (slot, group_id)
) WITH (fillfactor = 70);

CREATE TABLE key_sums (
    day               bigint NOT NULL,
    group_id          bigint NOT NULL REFERENCES sum_groups (id),
    key_id            text   COLLATE "C" NOT NULL,
    attempts          bigint NOT NULL,
    requests          bigint NOT NULL,
    answers           bigint NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    reasoning_tokens  bigint NOT NULL,
    kv_token_steps_x2 bigint NOT NULL,
    gpu_us            bigint NOT NULL,
    cost_nano         bigint NOT NULL,
    PRIMARY KEY (day, group_id, key_id)
) WITH (fillfactor = 70);

-- A row of its own, because the process that sums up locks it, and nobody else may wait for that.
CREATE TABLE sum_marks (
    id         integer PRIMARY KEY CHECK (id = 1),
    summed_seq bigint  NOT NULL
) WITH (fillfactor = 50);

INSERT INTO sum_marks (id, summed_seq) VALUES (1, 0);
