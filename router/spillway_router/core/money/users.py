"""End users: whom a client names in a request, as a pseudonym, so that a cap can hold for each of them.

A user belongs to an API key: two keys that both name a user `1` have two users. A request that names nobody belongs to
the key's one anonymous user. Names are often e-mail addresses, so nothing but this pseudonym is stored.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

_DIGITS = 32


def user_id(key_id: str, name: str) -> str:
    """Return the pseudonym of a user of an API key: the first 128 bits of a SHA-256 in hex, whatever the name holds."""
    return sha256(f"{key_id}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]


@lru_cache(maxsize=4096)
def anonymous_id(key_id: str) -> str:
    """Return the pseudonym of the one user of a key to whom all requests belong that name no user."""
    return user_id(key_id, "")
