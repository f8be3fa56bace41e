-- What was done to API keys and rentals, in a hash chain (tables/acts.py).
CREATE TABLE acts (
    seq     INTEGER PRIMARY KEY,
    ts      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    details TEXT    NOT NULL,
    link    BLOB    NOT NULL CHECK (length(link) = 32)
) STRICT;

CREATE TRIGGER acts_are_never_changed BEFORE UPDATE ON acts
BEGIN
    SELECT RAISE(ABORT, 'acts are append-only');
END;

CREATE TRIGGER acts_are_never_deleted BEFORE DELETE ON acts
BEGIN
    SELECT RAISE(ABORT, 'acts are append-only');
END;
