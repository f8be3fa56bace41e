"""Two engines, two routers, one ledger in PostgreSQL: what scaling out by configuration alone keeps and what it shares.

sites.py     the processes: engines (vLLM on the CPU, or the fake one) and routers from config files
flow.py      clients that never let go of a request, and what became of each
sessions.py  conversations with a growing prefix, and what the engines' prefix caches counted
affinity.py  did conversations stay with their prefix, and leave an engine that ended
trial.py     one trial: conversations, load, one engine ended under both, a budget spent from both sides
"""
