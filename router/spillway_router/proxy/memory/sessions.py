"""Sessions (`x-session-id`): whether anything private was said in one, and which local backend holds its prefix.

Which sessions are private is durable (private_sessions.py). Which backend holds a prefix is known in this process only,
within bounds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from spillway_router.core.routing.model import PrivacyVerdict, RequestFacts
from spillway_router.proxy.memory.private_sessions import PrivateSessions

SESSION_S = 3600.0
"""How long the backend of a session without requests is remembered."""
MAX_SESSIONS = 20_000

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
    """Sticky privacy and prefix affinity. All times are monotonic seconds."""

    def __init__(self, private: PrivateSessions, max_sessions: int = MAX_SESSIONS) -> None:
        self.private = private
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[SessionId, _Session] = OrderedDict()

    def with_privacy(self, facts: RequestFacts) -> RequestFacts:
        """Return the facts with the privacy verdict that holds in their session."""
        session_id = session_of(facts)
        if session_id is None or not facts.privacy.may_leave or not self.private.is_private(*session_id):
            return facts
        return replace(facts, privacy=PrivacyVerdict(False, ("session",)))

    async def joined(self, facts: RequestFacts) -> RequestFacts:
        """Return the facts with the privacy verdict that holds in their session, of which they become a part: the
        session of a private request is private from now on, and that is on disk when this returns."""
        facts = self.with_privacy(facts)
        session_id = session_of(facts)
        if session_id is not None and (not facts.privacy.may_leave or facts.caller.local_only):
            self.private.mark(*session_id)
            await self.private.stored()
        return facts

    def backend(self, session_id: SessionId, monotonic_s: float) -> str:
        """Return the local backend that answered last in the session; "" if none is known."""
        session = self._sessions.get(session_id)
        return session.backend if session is not None and monotonic_s - session.seen_s <= SESSION_S else ""

    def answered(self, session_id: SessionId, backend: str, monotonic_s: float) -> None:
        """Record that a local backend answered, so that it holds the session's prefix now."""
        session = self._sessions.setdefault(session_id, _Session(monotonic_s))
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
        session.seen_s, session.backend = monotonic_s, backend
