"""`make conformance`: the suites that other projects wrote for their servers and clients, run against the router."""
