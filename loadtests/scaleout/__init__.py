"""Two engines, two routers, one ledger in PostgreSQL: what scaling out by configuration alone keeps and what it shares.

sites.py   the processes: engines (vLLM on the CPU, or the fake one) and routers from config files
flow.py    clients that never let go of a request, and what became of each
trial.py   one trial: load, one engine ended under it, a budget spent from both sides
"""
