"""Replaying a ledger or a trace: where the requests come from, which policies are compared, what is shown."""
