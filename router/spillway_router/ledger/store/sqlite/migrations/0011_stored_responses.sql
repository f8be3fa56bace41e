-- Which backend made a response of /v1/responses, and for which key (tables/stored_responses.py). It holds no text.
CREATE TABLE stored_responses (
    response_id  TEXT    PRIMARY KEY CHECK (response_id <> ''),
    key_id       TEXT    NOT NULL,
    backend      TEXT    NOT NULL,
    made_ms      INTEGER NOT NULL,
    private      INTEGER NOT NULL CHECK (private IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX stored_responses_made ON stored_responses (made_ms);
