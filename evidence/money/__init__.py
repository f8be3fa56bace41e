"""Money end to end: real routers, paid stand-ins that keep their own bill, crashes; the ledger against both."""
