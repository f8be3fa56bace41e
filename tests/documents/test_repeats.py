"""`idempotency-key` on documents: the same request is read, and paid, once."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi.responses import Response
from tests.documents.papers import STRANGE, answer, truth
from tests.documents.test_extract import PATH, ask, setup

from spillway_router.documents import repeats
from spillway_router.documents.repeats import KeyTakenError, Repeats
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.testing import ManualClock
from spillway_router.testing.harness import LIMIT_S, error_of


async def test_the_same_request_is_read_once_and_another_with_its_key_is_refused() -> None:
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE))) as (engine, other, router):
        first = await ask(router, STRANGE.text, idempotency_key="k")
        assert await ask(router, STRANGE.text, idempotency_key="k") == first
        assert (len(engine.seen), len(other.seen)) == (1, 1)
        taken = await router.post({"text": "Another."}, PATH, idempotency_key="k")
        assert (taken.status_code, error_of(taken)["code"], error_of(taken)["param"]) == (
            409, "idempotency_conflict", "idempotency-key",
        )  # fmt: skip
        assert (await ask(router, STRANGE.text, idempotency_key="k2"))["id"] != first["id"]
        made = KeyStore(router.ledger).create(KeySpec("ann"), b"ann123", bytes(32), 0)
        await router.until(lambda: router.runtime.services.live().auth.verify(made.token, 1e9) is not None)
        mine = await ask(router, STRANGE.text, idempotency_key="k", authorization=f"Bearer {made.token}")
        assert mine["id"] != first["id"]
        assert len(other.seen) == 3
        for key in ("", "x" * 257):
            bad = await router.post({"text": STRANGE.text}, PATH, idempotency_key=key)
            assert (bad.status_code, error_of(bad)["param"]) == (400, "idempotency-key")


async def test_who_asks_again_meanwhile_gets_the_same_and_who_left_may_come_back() -> None:
    gate = asyncio.Event()
    async with setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)).after(gate)) as (_, other, router):
        async with httpx.AsyncClient(base_url=router.url, timeout=LIMIT_S) as leaving:
            gone = asyncio.create_task(
                leaving.post(PATH, json={"text": STRANGE.text}, headers={"idempotency-key": "k"})
            )
            arrived = await other.arrival()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        joined = asyncio.create_task(ask(router, STRANGE.text, idempotency_key="k"))
        assert not arrived.closed.is_set()
        gate.set()
        found = await joined
        assert found["step"] == "external"
        assert await ask(router, STRANGE.text, idempotency_key="k") == found
        assert len(other.seen) == 1


async def test_private_documents_are_not_kept() -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE))) as (engine, other, router):
        private = {"x_spillway_privacy": "local-only"}
        first = await ask(router, STRANGE.text, idempotency_key="k", **private)
        again = await ask(router, STRANGE.text, idempotency_key="k", **private)
        assert (first["id"] != again["id"], len(engine.seen)) == (True, 2)
        assert not other.seen


async def test_what_is_under_way_at_a_stop_ends() -> None:
    gate = asyncio.Event()
    async with (
        setup(answer(truth(STRANGE), 0.6), answer(truth(STRANGE)).after(gate)) as (_, other, router),
        httpx.AsyncClient(base_url=router.url, timeout=LIMIT_S) as leaving,
    ):
        gone = asyncio.create_task(leaving.post(PATH, json={"text": STRANGE.text}, headers={"idempotency-key": "k"}))
        await other.arrival()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
    record = router.runtime.services.records.recent(1)[0]
    assert (record.status, record.attempts[-1].outcome.kind) == (499, "cancelled")


async def test_what_failed_frees_its_key_and_replies_are_forgotten_in_time() -> None:
    clock = ManualClock()
    kept = Repeats(clock)
    made: list[Any] = []

    async def fine() -> Response:
        made.append(None)
        return Response(b"x" * 1000)

    async def broken() -> Response:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await kept.once(("a", "k"), b"1", broken)
    await kept.once(("a", "k"), b"1", fine)
    with pytest.raises(KeyTakenError):
        await kept.once(("a", "k"), b"2", fine)
    unheard = asyncio.create_task(kept.once(("a", "left"), b"1", fine))
    await asyncio.sleep(0)
    unheard.cancel()
    await asyncio.gather(unheard, return_exceptions=True)
    await kept.once(("a", "other"), b"1", fine)
    assert len(made) == 3
    clock.advance(repeats.HEARD_S + 1)
    await kept.once(("a", "k"), b"2", fine)  # forgotten: any body will do
    await kept.once(("a", "left"), b"1", fine)  # nobody got it yet: still there
    assert len(made) == 4
    for i in range(70_000_000 // 1_000_000):

        async def large() -> Response:
            return Response(b"x" * 1_000_000)

        await kept.once(("b", str(i)), b"1", large)
    await kept.once(("b", "69"), b"1", broken)  # the newest are kept
    with pytest.raises(ValueError, match="broken"):
        await kept.once(("b", "0"), b"1", broken)  # the oldest went
