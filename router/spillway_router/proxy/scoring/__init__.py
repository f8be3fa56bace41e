"""Confidence of an answer while it passes through."""
