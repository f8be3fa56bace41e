"""What was private once stays private: in time, after a restart, at other routers, and whatever others send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.proxy.answers import STRONG, said

from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.tables.private_sessions import DAY_MS, KEPT_DAYS, PrivateSession
from spillway_router.proxy.memory import private_sessions
from spillway_router.proxy.memory.private_sessions import PrivateSessions
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import MESSAGES, Router, error_of, local, pair, routing, settings
from spillway_router.testing.harness import cloud as cloud_line
from spillway_router.testing.tables import MemoryPrivateSessions

DAY_S = DAY_MS / 1000


class Wall:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class FaultyTable(MemoryPrivateSessions):
    """A table that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.questions: list[Sequence[str]] = []

    def put(self, records: Sequence[PrivateSession]) -> None:
        if self.away:
            raise LedgerUnavailableError("away")
        super().put(records)

    def among(self, digests: Sequence[str], now_ms: int) -> tuple[PrivateSession, ...]:
        self.questions.append(digests)
        if self.away:
            raise LedgerUnavailableError("away")
        return super().among(digests, now_ms)


async def test_a_private_session_is_on_disk_before_its_answer_and_outlives_the_router() -> None:
    table, wall = FaultyTable(), Wall()
    sessions = PrivateSessions(table, wall)
    sessions.mark("ann", "s")
    await sessions.stored()
    again = PrivateSessions(table, wall)
    again.load()
    assert again.is_private("ann", "s")
    assert not again.is_private("ann", "S")
    assert not again.is_private("bob", "s")


async def test_days_of_silence_end_a_private_session_and_use_does_not() -> None:
    table, wall = FaultyTable(), Wall()
    sessions = PrivateSessions(table, wall)
    sessions.mark("ann", "s")
    sessions.mark("ann", "silent")
    for _ in range(3):
        wall.now_s += KEPT_DAYS * DAY_S
        assert sessions.is_private("ann", "s")
        sessions.mark("ann", "s")
        await sessions.stored()
    assert not sessions.is_private("ann", "silent")
    assert len(list(table.all(0))) == 1, "what is too old is removed"
    wall.now_s += (KEPT_DAYS + 1) * DAY_S
    assert not sessions.is_private("ann", "s")


async def test_nobody_pushes_out_a_private_session_and_a_full_key_fails_closed() -> None:
    table, wall = FaultyTable(), Wall()
    sessions = PrivateSessions(table, wall, most_per_key=50)
    sessions.mark("victim", "s")
    for number in range(200):
        sessions.mark("flood", f"f{number}")
    await sessions.stored()
    assert len(list(table.all(0))) == 52, "the flood's fifty, one that says it is full, and the victim's"
    assert sessions.is_private("victim", "s")
    assert not sessions.is_private("victim", "other")
    again = PrivateSessions(table, wall, most_per_key=50)
    again.load()
    for router in (sessions, again):
        assert router.is_private("flood", "f0")
        assert router.is_private("flood", "f199")
        assert router.is_private("flood", "never seen")


async def test_another_router_is_asked_only_where_content_would_leave() -> None:
    table, wall = FaultyTable(), Wall()
    one, two = PrivateSessions(table, wall), PrivateSessions(table, wall)
    one.mark("ann", "s")
    await one.stored()
    assert not two.is_private("ann", "s")
    assert not table.questions
    answers = await asyncio.gather(*(two.is_private_anywhere("ann", name) for name in ("s", "t", "u")))
    assert answers == [True, False, False]
    assert len(table.questions) == 1, "requests that wait are asked for together"
    assert two.is_private("ann", "s")


async def test_a_database_that_is_away_lets_nothing_leave_and_is_written_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(private_sessions, "RETRY_S", 0.001)
    monkeypatch.setattr(private_sessions, "LONGEST_WAIT_S", 0.05)
    table, wall = FaultyTable(), Wall()
    table.away = True
    sessions = PrivateSessions(table, wall)
    sessions.mark("ann", "s")
    await sessions.stored()
    await sessions.stored()
    assert sessions.is_private("ann", "s")
    assert await sessions.is_private_anywhere("ann", "unknown")
    assert not sessions.is_private("ann", "unknown")
    table.away = False
    await sessions.stop()
    assert len(list(table.all(0))) == 1


BROKEN = Answer.json({}, 500)


async def stays(router: Router, session: str) -> bool:
    """Return whether an unmarked request of the session is kept, while the local engine is broken."""
    reply = await router.chat(x_session_id=session)
    if reply.status_code == 200:
        assert said(reply) == "strong"
        return False
    assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
    return True


async def test_a_restart_forgets_no_private_session(tmp_path: Path) -> None:
    async with pair(BROKEN, STRONG, folder=tmp_path) as (_, _, router):
        await router.chat(x_session_id="s", x_spillway_privacy="local-only")
        assert await stays(router, "s")
    async with pair(BROKEN, STRONG, folder=tmp_path) as (_, strong, router):
        assert await stays(router, "s")
        assert not strong.seen
        assert not await stays(router, "other")


async def sent_raw(router: Router, session: str) -> bytes:
    """Send a chat whose header has exactly this value, and return the reply. httpx refuses white space at its ends."""
    body = json.dumps({"model": "auto", "messages": MESSAGES}).encode()
    host = router.url.removeprefix("http://")
    head = f"host: {host}\r\nconnection: close\r\ncontent-type: application/json\r\nx-session-id: {session}\r\n"
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    lines = f"POST /v1/chat/completions HTTP/1.1\r\n{head}content-length: {len(body)}\r\n\r\n"
    writer.write(lines.encode() + body)
    reply = await reader.read()
    writer.close()
    return reply


async def test_white_space_around_a_sessions_name_is_no_part_of_it(tmp_path: Path) -> None:
    async with pair(BROKEN, STRONG, folder=tmp_path) as (_, strong, router):
        await router.chat(x_session_id="s1", x_spillway_privacy="local-only")
        assert not strong.seen
        for name in ("s1 ", "  s1", "\ts1 \t"):
            assert b"local_only_unavailable" in await sent_raw(router, name)
        assert b"strong" in await sent_raw(router, "s2")
        strong.seen.clear()
        assert not strong.seen


async def test_explain_knows_the_session_and_does_not_change_it(tmp_path: Path) -> None:
    async with pair(BROKEN, STRONG, folder=tmp_path) as (_, _, router):
        body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
        await router.post(body, "/v1/route/explain", x_session_id="s", x_spillway_privacy="local-only")
        assert not await stays(router, "s")
        await router.chat(x_session_id="s", x_spillway_privacy="local-only")
        explained = await router.post(body, "/v1/route/explain", x_session_id="s")
        assert explained.json()["facts"]["may_leave"] is False
        assert explained.json()["facts"]["privacy_reasons"] == ["session"]


async def test_a_session_is_private_at_every_router_of_the_ledger(tmp_path: Path) -> None:
    async with FaultUpstream(BROKEN) as engine, FaultUpstream(STRONG) as strong:
        text = settings(local(engine), cloud_line(strong))
        async with routing(text, tmp_path) as one, routing(text, tmp_path) as two:
            assert not await stays(two, "s")
            await one.chat(x_session_id="s", x_spillway_privacy="local-only")
            strong.seen.clear()
            assert await stays(two, "s")
            assert await stays(two, "s")
            assert not strong.seen
