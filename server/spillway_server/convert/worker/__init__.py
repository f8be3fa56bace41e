"""What needs numpy, torch and llm-compressor: runs as a process of its own in .venv-convert, one job each.

Nothing of Spillway outside this package is imported here, so that the environment needs none of its dependencies.
"""
