"""SQL files of the SQLite ledger's schema."""
