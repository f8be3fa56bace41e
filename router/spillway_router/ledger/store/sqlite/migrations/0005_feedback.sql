-- What people thought of answers (feedback.py): a rating, and which answer was asked for as a better one. The only text is
-- the reason that whoever rated gave.
CREATE TABLE feedback (
    request_id  TEXT    PRIMARY KEY CHECK (request_id <> ''),
    ts          INTEGER NOT NULL,
    key_id      TEXT    NOT NULL,
    backend     TEXT    NOT NULL,
    model       TEXT    NOT NULL,
    rating      INTEGER CHECK (rating BETWEEN 1 AND 5),
    reason      TEXT    NOT NULL,
    better_id   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX feedback_ts ON feedback (ts);
