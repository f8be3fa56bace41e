-- Running sums of answers to long prompts by the length class of the prompt (core/money/alternatives.py), beside
-- those of all attempts. All running sums are made again, bit by bit, as for a ledger that had none.
CREATE TABLE length_sums (
    slot              INTEGER NOT NULL,
    group_id          INTEGER NOT NULL REFERENCES sum_groups (id),
    length            INTEGER NOT NULL,
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
    unsure            INTEGER NOT NULL,
    estimated_nano    INTEGER NOT NULL,
    at_most_nano      INTEGER NOT NULL,
    PRIMARY KEY (slot, group_id, length)
) STRICT, WITHOUT ROWID;

DELETE FROM slot_sums;
DELETE FROM key_sums;
UPDATE marks SET summed_seq = 0;
