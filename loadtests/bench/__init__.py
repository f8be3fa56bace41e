"""What a router costs: CPU per request, memory, and its behaviour when a client leaves or reads slowly.

The systems are black boxes: each is a process that speaks HTTP. `python -m loadtests.bench` runs the benchmark.
"""
