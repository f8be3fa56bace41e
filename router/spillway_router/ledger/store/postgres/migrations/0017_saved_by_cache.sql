-- What the stored answer had cost that a request got from the cache. Rows written before this saved nothing, and their
-- links stay as they are.
ALTER TABLE entries ADD COLUMN saved_nano bigint NOT NULL DEFAULT 0;
ALTER TABLE slot_sums ADD COLUMN saved_nano bigint NOT NULL DEFAULT 0;
ALTER TABLE key_sums ADD COLUMN saved_nano bigint NOT NULL DEFAULT 0;
ALTER TABLE length_sums ADD COLUMN saved_nano bigint NOT NULL DEFAULT 0;
