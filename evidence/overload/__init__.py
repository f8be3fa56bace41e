"""Overload and attackers: an engine at its capacity, and clients that take more than their part."""
