"""The hot path: one request, top to bottom."""
