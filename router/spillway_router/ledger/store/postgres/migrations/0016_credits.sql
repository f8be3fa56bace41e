-- Credits that were taken (tables/credits.py), and what each end user of a key may have, such as 1000/month.
CREATE TABLE credits (
    scope    text   COLLATE "C" NOT NULL,
    counted  text   COLLATE "C" NOT NULL CHECK (counted IN ('requests', 'better')),
    period   text   COLLATE "C" NOT NULL CHECK (period IN ('hour', 'day', 'month')),
    start_ms bigint NOT NULL,
    used     bigint NOT NULL CHECK (used >= 0),
    most     bigint NOT NULL CHECK (most >= 0),
    PRIMARY KEY (scope, counted, period, start_ms)
) WITH (fillfactor = 50);

CREATE INDEX credits_begun ON credits (start_ms);

ALTER TABLE api_keys ADD COLUMN user_budget text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN user_credits text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN user_better text COLLATE "C" NOT NULL DEFAULT '';
