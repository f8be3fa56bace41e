"""Browser sessions: who signed in with an API key, known by a random cookie and never by the key.

A session lives in this process only and ends after eight hours, at the sign-out, and as soon as its key is revoked,
expires or gets another secret.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from spillway_router.ledger.records import KeyRecord

COOKIE = "spillway_session"
LIFE_S = 8 * 3600
MOST_SESSIONS = 1000
"""The oldest session ends when there is one more."""
MOST_OF_A_KEY = 50
"""The oldest session of a key ends when the key has one more, so that no key ends the sessions of others."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in browser: its id and its token against forged posts (both random), its key, the hash of the secret
    that it signed in with, and when it ends (monotonic seconds)."""

    id: str
    csrf: str
    key_id: str
    secret_sha256: bytes
    until_s: float


class Sessions:
    """The sessions of one router. `valid_key` returns a key that is valid now, None if there is none of this id;
    `random` returns a text that nobody can guess. Not safe across threads."""

    def __init__(self, valid_key: Callable[[str, float], KeyRecord | None], random: Callable[[], str]) -> None:
        self._valid_key = valid_key
        self._random = random
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, key: KeyRecord, monotonic_s: float) -> Session:
        """Begin a session of a key that was just verified."""
        session = Session(
            id=self._random(),
            csrf=self._random(),
            key_id=key.id,
            secret_sha256=key.secret_sha256,
            until_s=monotonic_s + LIFE_S,
        )
        same = [one.id for one in self._sessions.values() if one.key_id == key.id]
        for session_id in same[: max(0, len(same) + 1 - MOST_OF_A_KEY)]:
            del self._sessions[session_id]
        self._sessions[session.id] = session
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def get(self, session_id: str, monotonic_s: float) -> tuple[Session, KeyRecord] | None:
        """Return a session with its key; None if it is unknown or has ended."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        key = self._valid_key(session.key_id, monotonic_s)
        if (
            key is None
            or not hmac.compare_digest(key.secret_sha256, session.secret_sha256)
            or monotonic_s >= session.until_s
        ):
            del self._sessions[session_id]
            return None
        return session, key

    def end(self, session_id: str) -> None:
        """End a session; harmless if it has ended."""
        self._sessions.pop(session_id, None)
