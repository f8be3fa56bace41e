-- The shares of experiments that a bandit moved, one row per move (tables/experiments.py).
CREATE TABLE share_moves (
    experiment text   COLLATE "C" NOT NULL,
    setup      text   COLLATE "C" NOT NULL,
    at_ms      bigint NOT NULL,
    stretches  text   NOT NULL,
    reasons    text   NOT NULL,
    PRIMARY KEY (experiment, setup, at_ms)
);

CREATE INDEX share_moves_at ON share_moves (at_ms);
