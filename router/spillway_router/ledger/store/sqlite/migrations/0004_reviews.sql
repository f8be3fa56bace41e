-- Documents that wait for a person, and what became of them (reviews.py). content and outcome hold what was said, the
-- only place where anything does; both are emptied some days after the decision.
CREATE TABLE reviews (
    id          TEXT    PRIMARY KEY CHECK (id <> ''),
    request_id  TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('open', 'accepted', 'corrected', 'dismissed')),
    schema_name TEXT    NOT NULL,
    key_id      TEXT    NOT NULL,
    private     INTEGER NOT NULL CHECK (private IN (0, 1)),
    step        TEXT    NOT NULL,
    backend     TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    confidence  REAL,
    why         TEXT    NOT NULL,
    scores      TEXT    NOT NULL,
    content     TEXT,
    outcome     TEXT,
    label       TEXT,
    decided_ms  INTEGER CHECK (decided_ms >= 0),
    decided_by  TEXT    NOT NULL,
    CHECK ((state = 'open') = (decided_ms IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX reviews_created ON reviews (created_ms, id);
CREATE INDEX reviews_kept ON reviews (decided_ms) WHERE content IS NOT NULL;
