"""Sessions: the engine of each, and whose they are."""

from __future__ import annotations

import time

from spillway_router.core.routing.model import Caller, Hints, PrivacyVerdict, RequestFacts
from spillway_router.proxy.memory.private_sessions import PrivateSessions
from spillway_router.proxy.memory.sessions import SESSION_S, SessionId, Sessions, session_of
from spillway_router.testing import MemoryLedger

PUBLIC, PRIVATE = PrivacyVerdict(True), PrivacyVerdict(False, ("header",))


def facts(verdict: PrivacyVerdict, session_id: str = "s", key_id: str = "ann") -> RequestFacts:
    return RequestFacts(
        request_id="req_1",
        endpoint="chat",
        model="auto",
        stream=False,
        prompt_bytes=10,
        max_tokens=None,
        choices=1,
        needs=frozenset(),
        privacy=verdict,
        caller=Caller(key_id),
        hints=Hints(session_id=session_id),
    )


def sessions_of(max_sessions: int = 10) -> Sessions:
    return Sessions(PrivateSessions(MemoryLedger().private_sessions, time.time), max_sessions)


def test_a_session_belongs_to_the_key_that_sent_it() -> None:
    assert session_of(facts(PUBLIC)) == ("ann", "s")
    assert session_of(facts(PUBLIC, "")) is None


async def test_a_session_that_was_private_once_stays_private() -> None:
    sessions = sessions_of()
    assert (await sessions.joined(facts(PUBLIC))).privacy == PUBLIC
    assert (await sessions.joined(facts(PRIVATE))).privacy == PRIVATE
    assert (await sessions.joined(facts(PUBLIC))).privacy == PrivacyVerdict(False, ("session",))
    assert (await sessions.joined(facts(PRIVATE))).privacy == PRIVATE
    for other in (facts(PUBLIC, "t"), facts(PUBLIC, "s", "bob"), facts(PUBLIC, "")):
        assert (await sessions.joined(other)).privacy == PUBLIC
    assert await sessions.joined(facts(PRIVATE, "")) == facts(PRIVATE, "")


async def test_to_look_at_a_session_does_not_make_it_private() -> None:
    sessions = sessions_of()
    assert sessions.with_privacy(facts(PRIVATE)).privacy == PRIVATE
    assert sessions.with_privacy(facts(PUBLIC)).privacy == PUBLIC


def test_a_session_remembers_the_engine_that_answered_last() -> None:
    sessions = sessions_of()
    session: SessionId = ("ann", "s")
    assert sessions.backend(session, 0) == ""
    sessions.answered(session, "one", 0)
    sessions.answered(session, "two", 1)
    assert sessions.backend(session, 1 + SESSION_S) == "two"
    assert sessions.backend(session, 2 + SESSION_S) == ""


def test_the_engines_of_the_oldest_sessions_are_forgotten_first() -> None:
    sessions = sessions_of(max_sessions=3)
    for i in range(5):
        sessions.answered(("ann", f"s{i}"), "one", 1)
    assert [sessions.backend(("ann", f"s{i}"), 2) for i in range(5)] == ["", "", "one", "one", "one"]
