-- Sessions in which something private was said, by a hash of their name (tables/private_sessions.py).
CREATE TABLE private_sessions (
    digest   text   COLLATE "C" PRIMARY KEY CHECK (length(digest) = 32),
    key_id   text   COLLATE "C" NOT NULL,
    seen_ms  bigint NOT NULL
);

CREATE INDEX private_sessions_seen ON private_sessions (seen_ms);
