-- Running sums of answers to long prompts by the length class of the prompt (core/money/alternatives.py), beside
-- those of all attempts. All running sums are made again, bit by bit, as for a ledger that had none.
CREATE TABLE length_sums (
    slot              bigint  NOT NULL,
    group_id          bigint  NOT NULL REFERENCES sum_groups (id),
    length            bigint  NOT NULL,
    attempts          bigint  NOT NULL,
    requests          bigint  NOT NULL,
    answers           bigint  NOT NULL,
    prompt_tokens     bigint  NOT NULL,
    completion_tokens bigint  NOT NULL,
    cached_tokens     bigint  NOT NULL,
    reasoning_tokens  bigint  NOT NULL,
    kv_token_steps_x2 bigint  NOT NULL,
    gpu_us            bigint  NOT NULL,
    cost_nano         bigint  NOT NULL,
    unsure            bigint  NOT NULL,
    estimated_nano    bigint  NOT NULL,
    at_most_nano      bigint  NOT NULL,
    PRIMARY KEY (slot, group_id, length)
);

TRUNCATE slot_sums, key_sums;
UPDATE sum_marks SET summed_seq = 0;
