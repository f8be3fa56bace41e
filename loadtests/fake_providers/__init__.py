"""Tills: paid stand-in providers with any price that answer, fail and bill as each request tells them.

They are what the money tests compare the ledger with: real HTTP in a process of its own, and a bill that is computed
here, apart from the router's money code. See `server` for what a request may ask for.
"""
