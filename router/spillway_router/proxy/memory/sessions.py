"""Sessions (`x-session-id`): whether anything private was said in one, and which local backend holds its prefix.

Sessions live in this process only, within bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from spillway_router.core.routing.model import PrivacyVerdict, RequestFacts

SESSION_S = 3600.0
"""How long a session without requests is remembered."""
MAX_SESSIONS = 20_000
"""Of each kind: private sessions, and the others."""

SessionId = tuple[str, str]
"""Id of the API key, and the session id that its user chose: callers never share a session."""


def session_of(facts: RequestFacts) -> SessionId | None:
    """Return the session that a request belongs to; None without `x-session-id`."""
    session_id = facts.hints.session_id
    return (facts.caller.key_id, session_id) if session_id else None


@dataclass(slots=True)
class _Session:
    seen_s: float
    backend: str = ""


class Sessions:
    """Sticky privacy and prefix affinity. All times are monotonic seconds.

    A session that was private once stays so until it has been silent for SESSION_S. Private sessions are stored apart:
    however many others are open, they never push out a private one.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._open: OrderedDict[SessionId, _Session] = OrderedDict()
        self._private: OrderedDict[SessionId, _Session] = OrderedDict()

    def with_privacy(self, facts: RequestFacts, monotonic_s: float) -> RequestFacts:
        """Return the facts with the privacy verdict that holds in their session. The session of a private request
        becomes private."""
        session_id = session_of(facts)
        if session_id is None:
            return facts
        session = self._private.get(session_id)
        if session is not None and monotonic_s - session.seen_s > SESSION_S:
            session = None
        if session is None and facts.privacy.may_leave:
            return facts
        if session is None:
            session = self._open.pop(session_id, None) or _Session(monotonic_s)
            self._private[session_id] = session
        session.seen_s = monotonic_s
        self._private.move_to_end(session_id)
        while len(self._private) > self._max_sessions:
            self._private.popitem(last=False)
        return replace(facts, privacy=PrivacyVerdict(False, ("session",))) if facts.privacy.may_leave else facts

    def backend(self, session_id: SessionId, monotonic_s: float) -> str:
        """Return the local backend that answered last in the session; "" if none is known."""
        session = self._private.get(session_id) or self._open.get(session_id)
        return session.backend if session is not None and monotonic_s - session.seen_s <= SESSION_S else ""

    def answered(self, session_id: SessionId, backend: str, monotonic_s: float) -> None:
        """Record that a local backend answered, so that it holds the session's prefix now."""
        session = self._private.get(session_id)
        if session is None:
            session = self._open.setdefault(session_id, _Session(monotonic_s))
            self._open.move_to_end(session_id)
            while len(self._open) > self._max_sessions:
                self._open.popitem(last=False)
        session.seen_s, session.backend = monotonic_s, backend
