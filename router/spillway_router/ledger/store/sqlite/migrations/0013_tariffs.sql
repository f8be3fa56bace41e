-- Every price that rows name by its ref, as the text from which charges are computed (tables/tariffs.py).
CREATE TABLE tariffs (
    ref     TEXT    PRIMARY KEY CHECK (ref <> ''),
    price   TEXT    NOT NULL,
    kept_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER tariffs_are_never_changed BEFORE UPDATE ON tariffs
BEGIN
    SELECT RAISE(ABORT, 'prices in the ledger are never changed');
END;

CREATE TRIGGER tariffs_are_never_deleted BEFORE DELETE ON tariffs
BEGIN
    SELECT RAISE(ABORT, 'prices in the ledger are never deleted');
END;

-- Adjustments are few among very many rows: found without reading the others.
CREATE INDEX entries_adjusted ON entries (ts) WHERE kind = 'adjusted';
