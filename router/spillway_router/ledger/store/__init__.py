"""The databases that hold the ledger."""
