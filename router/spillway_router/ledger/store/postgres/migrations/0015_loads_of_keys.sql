-- How many tokens per minute a key may use, and how many requests it may have in progress (0: any number).
ALTER TABLE api_keys ADD COLUMN tokens_per_minute bigint NOT NULL DEFAULT 0 CHECK (tokens_per_minute >= 0);
ALTER TABLE api_keys ADD COLUMN concurrent bigint NOT NULL DEFAULT 0 CHECK (concurrent >= 0);
