"""Append-only entries on disk; balances are projections."""
