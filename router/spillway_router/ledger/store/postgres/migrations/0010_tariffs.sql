-- Every price that rows name by its ref, as the text from which charges are computed (tables/tariffs.py).
CREATE TABLE tariffs (
    ref     text   COLLATE "C" PRIMARY KEY CHECK (ref <> ''),
    price   text   COLLATE "C" NOT NULL,
    kept_ms bigint NOT NULL
);

CREATE TRIGGER tariffs_are_never_changed BEFORE UPDATE OR DELETE ON tariffs
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER tariffs_are_never_emptied BEFORE TRUNCATE ON tariffs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Adjustments are few among very many rows: found without reading the others.
CREATE INDEX entries_adjusted ON entries (ts) WHERE kind = 'adjusted';
