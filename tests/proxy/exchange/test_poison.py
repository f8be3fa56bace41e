"""Callers whose requests always fail: what they cost the others, and how fast a really broken backend leaves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.proxy.answers import answer
from tests.proxy.control.helpers import bearer

from spillway_router.proxy.memory.failing_bodies import KEPT_S, MOST_ENTRIES, MOST_FAILURES, FailingBodies
from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import Router, cloud, error_of, local, routing, settings

WHOLE = answer("beta")
FAILURE = Answer.json({"error": {"message": "internal", "code": 500}}, 500)
KEYS = "keys: {required: true}\n"
POISON = "POISON"


def picky(arrived: Any) -> Answer:
    """Answer everything but poison, as an engine does that one schema makes fail."""
    return FAILURE if POISON.encode() in arrived.body else WHOLE


def poisoned(number: int | None = None) -> dict[str, Any]:
    """Return the fields of a request that fails: a new one for each number, or always the same."""
    return {"messages": [{"role": "user", "content": f"{POISON} {number}"}], "max_tokens": 4}


def one_engine(engine: FaultUpstream, more: str = KEYS) -> str:
    return settings(local(engine), more=more)


async def answered_beside(router: Router, victim: dict[str, str], attack: Callable[[], Any]) -> int:
    """Return how many of ten requests of the victim were answered, each after ten of the attack."""
    answered = 0
    for _ in range(10):
        for _ in range(10):
            reply: httpx.Response = await attack()
            assert reply.status_code >= 500
        answered += (await router.chat(**victim)).status_code == 200
    return answered


async def test_one_attacker_with_ever_new_bodies_takes_the_engine_from_nobody(tmp_path: Path) -> None:
    async with FaultUpstream() as engine, routing(one_engine(engine), tmp_path) as router:
        engine.choose = picky
        attacker, victim = bearer(router, "inference", "a"), bearer(router, "inference", "v")
        numbers = itertools.count()
        assert await answered_beside(router, victim, lambda: router.chat(poisoned(next(numbers)), **attacker)) == 10


async def test_a_crowd_of_attackers_takes_the_engine_from_nobody(tmp_path: Path) -> None:
    async with FaultUpstream() as engine, routing(one_engine(engine), tmp_path) as router:
        engine.choose = picky
        crowd = itertools.cycle([bearer(router, "inference", f"a{i}") for i in range(5)])
        victim, numbers = bearer(router, "inference", "v"), itertools.count()

        async def attack() -> httpx.Response:
            reply = await router.chat(poisoned(next(numbers)), **next(crowd))
            await router.until(lambda: proofs_are_done(router))
            return reply

        assert await answered_beside(router, victim, attack) == 10


def proofs_are_done(router: Router) -> bool:
    return not any(proof.in_progress for proof in router.runtime.engine_watch.proofs.values())


async def test_a_cloud_is_open_only_for_those_whose_requests_failed(tmp_path: Path) -> None:
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream), more=KEYS), tmp_path) as router:
        upstream.choose = picky
        first, second = bearer(router, "inference", "a"), bearer(router, "inference", "b")
        victim = bearer(router, "inference", "v")
        for number in range(6):
            await router.chat(poisoned(number), **(first if number % 2 else second))
        kept = len(upstream.seen)
        assert (await router.chat(**first)).status_code == 503
        assert (await router.chat(**second)).status_code == 503
        assert len(upstream.seen) == kept
        assert (await router.chat(**victim)).status_code == 200


async def test_a_cloud_that_fails_for_three_callers_is_open_for_all(tmp_path: Path) -> None:
    async with FaultUpstream(FAILURE) as upstream, routing(settings(cloud(upstream), more=KEYS), tmp_path) as router:
        *failed, last = [bearer(router, "inference", name) for name in "abcd"]
        for caller in failed:
            await router.chat(**caller)
        kept = len(upstream.seen)
        assert (await router.chat(**last)).status_code == 503
        assert len(upstream.seen) == kept
        assert kept <= 6  # each request asked once more, as nobody else was left


async def test_an_engine_that_fails_for_its_only_caller_leaves_at_once(tmp_path: Path) -> None:
    async with FaultUpstream(WHOLE) as engine, routing(one_engine(engine), tmp_path) as router:
        caller, other = bearer(router, "inference", "only"), bearer(router, "inference", "other")
        assert (await router.chat(**caller)).status_code == 200
        engine.answer = FAILURE
        await router.chat(**caller)
        await router.until(lambda: proofs_are_done(router))
        for _ in range(2):
            await router.chat(**caller)
        kept = len(engine.seen)
        assert (await router.chat(**other)).status_code == 503
        assert len(engine.seen) == kept


async def test_without_keys_a_failing_body_is_counted_once_while_others_are_answered() -> None:
    clock = ManualClock()
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream)), clock=clock) as router:
        upstream.choose = picky
        await router.chat(poisoned())
        clock.advance(1.0)
        assert (await router.chat()).status_code == 200
        clock.advance(20.0)  # the success is no longer recent
        for _ in range(5):
            assert (await router.chat(poisoned())).status_code >= 500
        assert (await router.chat()).status_code == 200


async def test_a_body_that_fails_again_and_again_is_asked_of_the_next_backend_only() -> None:
    async with (
        FaultUpstream() as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other))) as router,
    ):
        engine.choose = picky
        for _ in range(12):
            assert (await router.chat()).status_code == 200
            reply = await router.chat(poisoned())
            assert reply.headers["x-spillway-backend"] == "cloud"
        assert sum(POISON.encode() in arrived.body for arrived in engine.seen) == 6
        assert reply.headers["x-spillway-decision"] == "overflow"
        assert "capability" in reply.headers["x-spillway-reason"]


async def test_a_body_that_fails_again_and_again_and_has_no_other_backend_is_refused_for_good() -> None:
    async with FaultUpstream() as engine, routing(settings(local(engine))) as router:
        engine.choose = picky
        for _ in range(6):
            assert (await router.chat()).status_code == 200
            await router.chat(poisoned())
        asked = len(engine.seen)
        reply = await router.chat(poisoned())
        assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
        assert reply.headers["x-should-retry"] == "false"
        assert "again and again" in error_of(reply)["message"]
        assert len(engine.seen) == asked


async def test_an_honest_retry_of_a_body_that_failed_once_is_answered() -> None:
    async with FaultUpstream(WHOLE) as engine, routing(settings(local(engine))) as router:
        for _ in range(8):
            engine.script.extend([FAILURE] * 2)
            assert (await router.chat()).status_code == 502
            assert (await router.chat()).status_code == 200


async def test_a_403_for_one_callers_prompt_closes_the_cloud_for_that_caller_only(tmp_path: Path) -> None:
    blocked = Answer.json({"error": {"message": "blocked by the content filter", "code": 403}}, 403)
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream), more=KEYS), tmp_path) as router:
        upstream.choose = lambda arrived: blocked if POISON.encode() in arrived.body else WHOLE
        attacker, victim = bearer(router, "inference", "a"), bearer(router, "inference", "v")
        for number in range(5):
            assert (await router.chat(poisoned(number), **attacker)).status_code >= 400
            assert (await router.chat(**victim)).status_code == 200


def test_a_body_is_forgotten_after_a_minute_and_when_it_succeeds() -> None:
    bodies = FailingBodies()
    one = (3, b"one")
    for second in range(MOST_FAILURES):
        bodies.note("local", one, float(second))
    latest = MOST_FAILURES - 1.0
    assert bodies.is_hopeless("local", one, last_ok_at=2.0, monotonic_s=latest)
    assert not bodies.is_hopeless("local", one, last_ok_at=-1.0, monotonic_s=latest)
    assert not bodies.is_hopeless("other", one, last_ok_at=2.0, monotonic_s=latest)
    assert not bodies.is_hopeless("local", (3, b"two"), last_ok_at=2.0, monotonic_s=latest)
    assert not bodies.is_hopeless("local", one, last_ok_at=2.0, monotonic_s=latest + KEPT_S + 1)
    bodies.succeeded("local", one)
    assert bodies.is_empty
    for number in range(2 * MOST_ENTRIES):
        bodies.note("local", (number, b"many"), 0.0)
    assert len(bodies) == MOST_ENTRIES
    bodies.note("local", (4, b"late"), KEPT_S + 1)
    assert len(bodies) == 1
