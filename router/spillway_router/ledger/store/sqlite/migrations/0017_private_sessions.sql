-- Sessions in which something private was said, by a hash of their name (tables/private_sessions.py).
CREATE TABLE private_sessions (
    digest   TEXT    PRIMARY KEY CHECK (length(digest) = 32),
    key_id   TEXT    NOT NULL,
    seen_ms  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX private_sessions_seen ON private_sessions (seen_ms);
