"""Session affinity: which engine holds the prefix of a session. All routers agree on it without talking to each other.

Rendezvous hashing (Thaler and Ravishankar, 1998): every router ranks the engines by a hash of session and engine and
takes the highest one that may serve the request. Sessions spread evenly over the engines, and when an engine goes away,
only its own sessions move.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256


def preferred_engine(owner: tuple[str, str], engines: Iterable[str]) -> str:
    """Return the engine that ranks highest for the session of `owner` (key id, session id); "" for no engines."""
    session = sha256("\0".join(owner).encode("utf-8", "surrogatepass")).digest()
    return max(engines, key=lambda name: (sha256(session + name.encode()).digest(), name), default="")
