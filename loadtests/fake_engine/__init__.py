"""A local engine without a GPU: continuous batching by iteration on a service curve, behind vLLM's HTTP API.

batch.py   the batch, step by step (no clock, no I/O)
live.py    the batch on a real clock: requests in, tokens out
answers.py what it says: known documents from a corpus, otherwise words
app.py     vLLM's API: chat, completions, embeddings, models, health, metrics
"""
