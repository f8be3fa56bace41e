"""Sessions: a private one stays private, and stays with its engine; none is remembered for ever."""

from __future__ import annotations

from spillway_router.core.routing.model import Caller, Hints, PrivacyVerdict, RequestFacts
from spillway_router.proxy.memory.sessions import SESSION_S, SessionId, Sessions, session_of

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


def reasons(sessions: Sessions, request: RequestFacts, at_s: float) -> tuple[str, ...] | None:
    """Why the request is private in its session; None if it may leave."""
    privacy = sessions.with_privacy(request, at_s).privacy
    return None if privacy.may_leave else privacy.reasons


def test_a_session_belongs_to_the_key_that_sent_it() -> None:
    assert session_of(facts(PUBLIC)) == ("ann", "s")
    assert session_of(facts(PUBLIC, "")) is None


def test_a_session_that_was_private_once_stays_private() -> None:
    sessions = Sessions()
    assert reasons(sessions, facts(PUBLIC), 0) is None
    assert reasons(sessions, facts(PRIVATE), 1) == ("header",)
    assert reasons(sessions, facts(PUBLIC), 2) == ("session",)
    for other in (facts(PUBLIC, "t"), facts(PUBLIC, "s", "bob"), facts(PUBLIC, "")):
        assert reasons(sessions, other, 3) is None
    assert sessions.with_privacy(facts(PRIVATE, ""), 3) == facts(PRIVATE, "")


def test_only_silence_ends_a_private_session() -> None:
    sessions = Sessions()
    reasons(sessions, facts(PRIVATE), 0)
    assert reasons(sessions, facts(PUBLIC), SESSION_S) == ("session",)
    assert reasons(sessions, facts(PUBLIC), 2 * SESSION_S) == ("session",)
    assert reasons(sessions, facts(PUBLIC), 3 * SESSION_S + 1) is None


def test_a_session_remembers_the_engine_that_answered_last() -> None:
    sessions = Sessions()
    session: SessionId = ("ann", "s")
    assert sessions.backend(session, 0) == ""
    sessions.answered(session, "one", 0)
    sessions.answered(session, "two", 1)
    assert sessions.backend(session, 1 + SESSION_S) == "two"
    assert sessions.backend(session, 2 + SESSION_S) == ""


def test_a_session_keeps_its_engine_when_it_becomes_private() -> None:
    sessions = Sessions()
    sessions.answered(("ann", "s"), "one", 0)
    reasons(sessions, facts(PRIVATE), 1)
    assert sessions.backend(("ann", "s"), 2) == "one"
    sessions.answered(("ann", "s"), "two", 3)
    assert sessions.backend(("ann", "s"), 4) == "two"


def test_open_sessions_push_out_the_oldest_open_one_and_no_private_one() -> None:
    sessions = Sessions(max_sessions=3)
    reasons(sessions, facts(PRIVATE, "private"), 0)
    for i in range(5):
        sessions.answered(("ann", f"s{i}"), "one", 1)
    assert [sessions.backend(("ann", f"s{i}"), 2) for i in range(5)] == ["", "", "one", "one", "one"]
    assert reasons(sessions, facts(PUBLIC, "private"), 2) == ("session",)
