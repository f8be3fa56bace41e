"""Money trials end to end: real routers, fake paid providers that keep their own bill, and crashes; the ledger is
compared with the bill."""
