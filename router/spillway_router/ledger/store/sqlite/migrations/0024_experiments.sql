-- The arm of an experiment in which a request was, with the place of its unit, and how long such a request took. Rows
-- written before this were in none, and their links stay as they are.
ALTER TABLE entries ADD COLUMN experiment TEXT NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN took_ms INTEGER NOT NULL DEFAULT 0;

CREATE INDEX entries_experiments ON entries (ts) WHERE experiment <> '';
