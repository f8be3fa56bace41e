-- What a charge is computed from besides its tokens, and how sure it is (entries.py). Rows written before this have the
-- defaults, and their links stay as they are.
ALTER TABLE entries ADD COLUMN user_id                 TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN cache_write_tokens      INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN cache_write_long_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN service                 TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN billed_us               INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN media_tokens            TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN calls                   TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN estimated_nano          INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN at_most_nano            INTEGER NOT NULL DEFAULT 0;

ALTER TABLE holds ADD COLUMN user_id TEXT NOT NULL DEFAULT '';

ALTER TABLE slot_sums ADD COLUMN unsure         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE slot_sums ADD COLUMN estimated_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE slot_sums ADD COLUMN at_most_nano   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_sums ADD COLUMN unsure         INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_sums ADD COLUMN estimated_nano INTEGER NOT NULL DEFAULT 0;
ALTER TABLE key_sums ADD COLUMN at_most_nano   INTEGER NOT NULL DEFAULT 0;

-- More kinds of rows. SQLite can't change a CHECK, and copying millions of rows into a new table would take minutes, so
-- the text of the table's definition is changed, which SQLite permits for constraints (sqlite.org/lang_altertable.html).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
   SET sql = replace(replace(sql,
           '''gpu_hour'', ''idle'')', '''gpu_hour'', ''idle'', ''fixed'', ''fixed_adjusted'')'),
           'amount_nano >= 0 OR kind = ''adjusted''', 'amount_nano >= 0 OR kind IN (''adjusted'', ''fixed_adjusted'')')
 WHERE type = 'table' AND name = 'entries';
PRAGMA writable_schema = RESET;

CREATE INDEX entries_fixed_corrections ON entries (ts, amount_nano, gpu_us) WHERE kind = 'fixed_adjusted';
CREATE INDEX entries_other_fixed ON entries (ts, amount_nano) WHERE kind = 'fixed';
