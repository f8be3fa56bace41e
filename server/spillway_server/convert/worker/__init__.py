"""The jobs that need numpy, torch and llm-compressor. Each runs as a process of its own in .venv-convert.

Apart from `convert.steps` the package imports nothing of Spillway, so that the environment needs none of its
dependencies.
"""
