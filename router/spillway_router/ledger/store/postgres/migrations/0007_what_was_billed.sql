-- What a charge is computed from besides its tokens, and how sure it is (entries.py). Rows written before this have the
-- defaults, and their links stay as they are.
ALTER TABLE entries
    ADD COLUMN user_id                 text   COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN cache_write_tokens      bigint NOT NULL DEFAULT 0,
    ADD COLUMN cache_write_long_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN service                 text   COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN billed_us               bigint NOT NULL DEFAULT 0,
    ADD COLUMN media_tokens            text   COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN calls                   text   COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN estimated_nano          bigint NOT NULL DEFAULT 0,
    ADD COLUMN at_most_nano            bigint NOT NULL DEFAULT 0;

ALTER TABLE holds ADD COLUMN user_id text COLLATE "C" NOT NULL DEFAULT '';

ALTER TABLE slot_sums
    ADD COLUMN unsure         bigint NOT NULL DEFAULT 0,
    ADD COLUMN estimated_nano bigint NOT NULL DEFAULT 0,
    ADD COLUMN at_most_nano   bigint NOT NULL DEFAULT 0;
ALTER TABLE key_sums
    ADD COLUMN unsure         bigint NOT NULL DEFAULT 0,
    ADD COLUMN estimated_nano bigint NOT NULL DEFAULT 0,
    ADD COLUMN at_most_nano   bigint NOT NULL DEFAULT 0;

-- More kinds of rows. The stored rows satisfy the new constraints, as they satisfied the old ones.
ALTER TABLE entries
    DROP CONSTRAINT entries_kind_check,
    DROP CONSTRAINT entries_check,
    ADD CONSTRAINT entries_kind_check CHECK (kind IN ('reserved', 'charged', 'released', 'adjusted', 'gpu_hour', 'idle',
                                                      'fixed', 'fixed_adjusted')) NOT VALID,
    ADD CONSTRAINT entries_check CHECK (amount_nano >= 0 OR kind IN ('adjusted', 'fixed_adjusted')) NOT VALID;

CREATE INDEX entries_fixed_corrections ON entries (ts) WHERE kind = 'fixed_adjusted';
CREATE INDEX entries_other_fixed ON entries (ts) WHERE kind = 'fixed';
