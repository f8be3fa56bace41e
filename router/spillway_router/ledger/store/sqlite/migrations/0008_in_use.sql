-- 1 while a router has the file open. The last rows are then in the -wal file beside it, so a copy of this file alone
-- lacks them (store/sqlite/ledger.py).
ALTER TABLE marks ADD COLUMN in_use INTEGER NOT NULL DEFAULT 0;
