-- Budget alerts that were raised (tables/alerts.py): each threshold of a cap once per period, whichever router told it.
CREATE TABLE alerts (
    start_ms    INTEGER NOT NULL,
    scope       TEXT    NOT NULL,
    period      TEXT    NOT NULL,
    at          TEXT    NOT NULL,
    limit_nano  INTEGER NOT NULL,
    claimed_ms  INTEGER NOT NULL,
    PRIMARY KEY (start_ms, scope, period, at, limit_nano)
) STRICT, WITHOUT ROWID;
