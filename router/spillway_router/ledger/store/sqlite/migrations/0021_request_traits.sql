-- What requests asked for where rules look at it, for replays (tables/request_traits.py). It holds no text.
CREATE TABLE request_traits (
    request_id  TEXT    PRIMARY KEY CHECK (request_id <> ''),
    model       TEXT    NOT NULL,
    complexity  INTEGER NOT NULL,
    language    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
