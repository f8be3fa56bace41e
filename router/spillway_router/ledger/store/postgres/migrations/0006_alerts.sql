-- Budget alerts that were raised (tables/alerts.py): each threshold of a cap once per period, whichever router told it.
CREATE TABLE alerts (
    start_ms    bigint NOT NULL,
    scope       text   COLLATE "C" NOT NULL,
    period      text   COLLATE "C" NOT NULL,
    at          text   COLLATE "C" NOT NULL,
    limit_nano  bigint NOT NULL,
    claimed_ms  bigint NOT NULL,
    PRIMARY KEY (start_ms, scope, period, at, limit_nano)
);
