-- Credits that were taken (tables/credits.py), and what each end user of a key may have, such as 1000/month.
CREATE TABLE credits (
    scope    TEXT    NOT NULL,
    counted  TEXT    NOT NULL CHECK (counted IN ('requests', 'better')),
    period   TEXT    NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    start_ms INTEGER NOT NULL,
    used     INTEGER NOT NULL CHECK (used >= 0),
    most     INTEGER NOT NULL CHECK (most >= 0),
    PRIMARY KEY (scope, counted, period, start_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX credits_begun ON credits (start_ms);

ALTER TABLE api_keys ADD COLUMN user_budget TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN user_credits TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN user_better TEXT NOT NULL DEFAULT '';
