"""Sessions (`x-session-id`): whether anything private was said in one, which local backend holds its prefix, and how
complex it has become.

Which sessions are private is durable (private_sessions.py). The rest is known in this process only, within bounds.
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
    complexity: int = 0


class Sessions:
    """Sticky privacy, prefix affinity and complexity. All times are monotonic seconds."""

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
        self._seen(session_id, monotonic_s).backend = backend

    def with_complexity(self, facts: RequestFacts, monotonic_s: float) -> RequestFacts:
        """Return the facts with the complexity of their session, which never falls: a short "go on" in a hard
        conversation stays with the model that has it."""
        session_id, traits = session_of(facts), facts.traits
        session = None if session_id is None else self._sessions.get(session_id)
        if session is None or traits is None or monotonic_s - session.seen_s > SESSION_S:
            return facts
        if session.complexity <= traits.complexity:
            return facts
        return replace(facts, traits=replace(traits, complexity=session.complexity))

    def rises(self, facts: RequestFacts, monotonic_s: float) -> RequestFacts:
        """Return the facts with the complexity of their session, which remembers it from now on."""
        session_id = session_of(facts)
        if session_id is None or facts.traits is None:
            return facts
        facts = self.with_complexity(facts, monotonic_s)
        if facts.traits is not None:
            self._seen(session_id, monotonic_s).complexity = facts.traits.complexity
        return facts

    def _seen(self, session_id: SessionId, monotonic_s: float) -> _Session:
        session = self._sessions.setdefault(session_id, _Session(monotonic_s))
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)
        if monotonic_s - session.seen_s > SESSION_S:
            session.backend, session.complexity = "", 0
        session.seen_s = monotonic_s
        return session
