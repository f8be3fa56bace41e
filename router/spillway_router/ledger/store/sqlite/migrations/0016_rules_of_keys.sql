-- What a key may use (names separated by commas; empty: everything), until when, how often and for how much, and the
-- secret that it had before its last rotation.
ALTER TABLE api_keys ADD COLUMN models TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN backends TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN expires INTEGER;
ALTER TABLE api_keys ADD COLUMN per_minute INTEGER NOT NULL DEFAULT 0 CHECK (per_minute >= 0);
ALTER TABLE api_keys ADD COLUMN budget_nano INTEGER CHECK (budget_nano >= 0);
ALTER TABLE api_keys ADD COLUMN budget_period TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN old_sha256 BLOB CHECK (length(old_sha256) = 32);
ALTER TABLE api_keys ADD COLUMN old_until INTEGER;
