"""Paid fake providers with any price, which answer, fail and bill as each request tells them.

The money tests compare the ledger with them: they are real HTTP in a process of its own, and their bill is computed
here, apart from the router's money code. `server` says what a request may ask for.
"""
