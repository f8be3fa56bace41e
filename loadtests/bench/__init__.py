"""What a router costs: CPU per request, memory, and how it behaves when a client leaves or reads slowly.

Black box: every system is a process that speaks HTTP, whatever it is written in. `python -m loadtests.bench`.
"""
