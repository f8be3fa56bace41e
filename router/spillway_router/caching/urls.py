"""The names of the places for stored answers, as configurations write them."""

from __future__ import annotations

MEMORY = "memory"
SQLITE = "sqlite:///"
"""What begins the URL of a file; a path follows."""
REDIS = ("redis://", "rediss://", "unix://")
"""What begins the URLs that redis-py knows."""
VALKEY = {"valkey://": "redis://", "valkeys://": "rediss://"}
"""Other beginnings for the same servers."""
