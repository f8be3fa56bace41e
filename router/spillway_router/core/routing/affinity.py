"""Where a session is at home, agreed on by all routers without a word between them.

Rendezvous hashing (Thaler and Ravishankar, 1998): every router ranks the engines by a hash of session and engine, and
takes the first that may have the request. Sessions spread evenly; when an engine goes, only its own sessions move.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def preferred_engine(owner: tuple[str, str], engines: Iterable[str]) -> str:
    """The first of `engines` for the session of `owner` (key id, session id); "" if there are none."""
    session = sha256("\0".join(owner).encode("utf-8", "surrogatepass")).digest()
    return max(engines, key=lambda name: (sha256(session + name.encode()).digest(), name), default="")
