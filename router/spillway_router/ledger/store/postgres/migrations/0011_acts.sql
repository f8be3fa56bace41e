-- What was done to API keys and rentals, in a hash chain (tables/acts.py).
CREATE TABLE acts (
    seq     bigint PRIMARY KEY CHECK (seq > 0),
    ts      bigint NOT NULL,
    actor   text   COLLATE "C" NOT NULL,
    kind    text   COLLATE "C" NOT NULL,
    subject text   COLLATE "C" NOT NULL,
    details text   COLLATE "C" NOT NULL,
    link    bytea  NOT NULL CHECK (length(link) = 32)
);

CREATE TRIGGER acts_are_never_changed BEFORE UPDATE OR DELETE ON acts
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER acts_are_never_emptied BEFORE TRUNCATE ON acts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
