"""Sessions and idempotency keys over real sockets."""

from __future__ import annotations

import asyncio

from tests.proxy.answers import KEPT, STRONG, WEAK, answer, said

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import error_of, local, pair, routing, settings


async def test_a_session_once_private_stays_private() -> None:
    async with pair(Answer.json({}, 500), STRONG) as (_, strong, router):
        private = await router.chat(x_session_id="s", x_spillway_privacy="local-only")
        assert private.status_code == 503
        later = await router.chat(x_session_id="s")
        assert (later.status_code, error_of(later)["code"]) == (503, "local_only_unavailable")
        assert not strong.seen
        assert said(await router.chat(x_session_id="other")) == "strong"
        assert said(await router.chat()) == "strong"


async def test_a_session_stays_with_its_engine() -> None:
    async with (
        FaultUpstream(answer("one")) as one,
        FaultUpstream(answer("two")) as two,
        routing(settings(local(one, "one"), local(two, "two"))) as router,
    ):
        first = said(await router.chat(x_session_id="s"))
        # Measurements since then may favour the other engine, but the session's prefix is here.
        for _ in range(6):
            await router.chat()
        assert [said(await router.chat(x_session_id="s")) for _ in range(4)] == [first] * 4


async def test_the_same_key_is_worked_on_once() -> None:
    gate = asyncio.Event()
    async with pair(WEAK.after(gate), STRONG) as (engine, _, router):
        running = asyncio.create_task(router.chat(idempotency_key="k"))
        await engine.arrival()
        second = await router.chat(idempotency_key="k")
        assert (second.status_code, error_of(second)["code"]) == (409, "idempotency_conflict")
        assert "in progress" in error_of(second)["message"]
        gate.set()
        first = await running
        assert said(first) == "weak"
        third = await router.chat(idempotency_key="k")
        assert third.status_code == 409
        assert first.headers["x-request-id"] in error_of(third)["message"]
        other = await router.chat({"temperature": 1}, idempotency_key="k")
        assert "another body" in error_of(other)["message"]
        assert said(await router.chat(idempotency_key="k2")) == "weak"
        assert len(engine.seen) == 2


async def test_with_retention_an_answer_is_repeated() -> None:
    async with pair(WEAK, STRONG, more=KEPT) as (engine, _, router):
        first = await router.chat(idempotency_key="k")
        again = await router.chat(idempotency_key="k")
        assert again.content == first.content
        assert again.headers["x-request-id"] == first.headers["x-request-id"]
        assert len(engine.seen) == 1
        await router.chat(idempotency_key="p", x_spillway_privacy="local-only")
        assert (await router.chat(idempotency_key="p", x_spillway_privacy="local-only")).status_code == 409


async def test_a_failure_releases_its_key() -> None:
    async with FaultUpstream(WEAK) as engine, routing(settings(local(engine))) as router:
        engine.script.extend([Answer.json({"error": {"message": "no"}}, 500)] * 2)  # the last backend is asked twice
        assert (await router.chat(idempotency_key="k")).status_code == 502
        assert said(await router.chat(idempotency_key="k")) == "weak"
        assert (await router.chat(idempotency_key="x" * 257)).status_code == 400
