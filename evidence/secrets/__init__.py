"""Distinctive secrets planted wherever the product takes one, and a search for them wherever it writes something."""
