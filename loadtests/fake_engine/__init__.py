"""A local engine without a GPU: continuous batching, iteration by iteration on a service curve, behind vLLM's HTTP API.

batch.py    the batch, step by step (no clock, no I/O)
live.py     the batch on a real clock: requests come in, tokens go out
answers.py  what it answers: the text of a corpus for known documents, words otherwise
requests.py the requests it accepts, checked as vLLM checks them
app.py      vLLM's API: chat, completions, embeddings, models, health, metrics
"""
