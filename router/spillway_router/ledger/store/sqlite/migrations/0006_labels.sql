-- What audits found of local answers (labels.py): right or wrong, per field, with the scores. No content.
CREATE TABLE labels (
    request_id  TEXT    PRIMARY KEY CHECK (request_id <> ''),
    ts          INTEGER NOT NULL,
    task        TEXT    NOT NULL,
    backend     TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    judge       TEXT    NOT NULL,
    confidence  REAL,
    "right"     INTEGER NOT NULL CHECK ("right" IN (0, 1)),
    scores      TEXT    NOT NULL,
    fields      TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX labels_ts ON labels (ts, request_id);

-- How many reviews wait, and since when, is asked with every document that goes there and with every look at metrics.
CREATE INDEX reviews_open ON reviews (created_ms) WHERE state = 'open';
