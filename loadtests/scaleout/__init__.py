"""Two engines, two routers, one ledger in PostgreSQL: what scaling out by configuration alone preserves and shares.

sites.py     the processes: engines (vLLM on the CPU, or the fake one) and routers from config files
flow.py      clients that follow each request to its end, and the outcome of each
sessions.py  conversations with a growing prefix, and the counters of the engines' prefix caches
affinity.py  whether conversations stay with their prefix, and leave an engine that ended
trial.py     one trial: conversations, load, one engine ended under both, a budget spent from both sides
"""
