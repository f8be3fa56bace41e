-- The shares of experiments that a bandit moved, one row per move (tables/experiments.py).
CREATE TABLE share_moves (
    experiment TEXT    NOT NULL,
    setup      TEXT    NOT NULL,
    at_ms      INTEGER NOT NULL,
    stretches  TEXT    NOT NULL,
    reasons    TEXT    NOT NULL,
    PRIMARY KEY (experiment, setup, at_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX share_moves_at ON share_moves (at_ms);
