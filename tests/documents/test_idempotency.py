"""`idempotency-key` on documents: the same request is read, and paid, once."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi.responses import Response
from tests.documents.harness import PATH, ask, setup
from tests.documents.papers import STRANGE, answer, truth

from spillway_router.documents.idempotency import IdempotentExtractions
from spillway_router.ledger.tables.keys import KeySpec, KeyStore
from spillway_router.proxy.memory.idempotency import DOCUMENTS
from spillway_router.proxy.request.errors import RefusedError
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
        ann = KeyStore(router.ledger.keys).create(KeySpec("ann"), b"ann123", bytes(32), 0)
        await router.until(lambda: router.runtime.services.config().auth.verify(ann.token, 1e9) is not None)
        mine = await ask(router, STRANGE.text, idempotency_key="k", authorization=f"Bearer {ann.token}")
        assert mine["id"] != first["id"]
        assert len(other.seen) == 3
        for key in ("", "x" * 257):
            bad = await router.post({"text": STRANGE.text}, PATH, idempotency_key=key)
            assert (bad.status_code, error_of(bad)["param"]) == (400, "idempotency-key")


async def test_a_repeated_request_shares_the_reply_and_a_client_that_left_may_come_back() -> None:
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
        extraction = await joined
        assert extraction["step"] == "external"
        assert await ask(router, STRANGE.text, idempotency_key="k") == extraction
        assert len(other.seen) == 1


async def test_replies_to_private_documents_are_not_stored() -> None:
    async with setup(answer(truth(STRANGE), 0.97), answer(truth(STRANGE))) as (engine, other, router):
        private = {"x_spillway_privacy": "local-only"}
        first = await ask(router, STRANGE.text, idempotency_key="k", **private)
        again = await ask(router, STRANGE.text, idempotency_key="k", **private)
        assert (first["id"] != again["id"], len(engine.seen)) == (True, 2)
        assert not other.seen


async def test_a_stop_ends_extractions_in_progress() -> None:
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


class Extractions:
    """Extractions that count how often they run; `status` and `gate` decide how and when the next one ends."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.keyed = IdempotentExtractions(self.clock)
        self.runs = 0
        self.status = 200
        self.gate = asyncio.Event()
        self.gate.set()

    async def _extract(self) -> Response:
        self.runs += 1
        number = self.runs
        await self.gate.wait()
        if self.status == 500:
            raise ValueError("broken")
        return Response(f"reply {number}", self.status)

    async def run(self, key: str = "k", body: bytes = b"1") -> str:
        """The text of the reply."""
        reply = await self.keyed.run(("ann", key), body, "req_1", self._extract)
        return bytes(reply.body).decode()


async def test_a_failure_releases_its_key() -> None:
    extractions = Extractions()
    extractions.status = 500
    with pytest.raises(ValueError, match="broken"):
        await extractions.run()
    extractions.status = 422
    assert await extractions.run() == "reply 2"
    extractions.status = 200
    assert await extractions.run() == "reply 3"
    assert await extractions.run() == "reply 3"
    with pytest.raises(RefusedError, match="another body"):
        await extractions.run(body=b"2")


async def test_a_failure_reaches_everybody_who_waits() -> None:
    extractions = Extractions()
    extractions.gate.clear()
    waiting = [asyncio.create_task(extractions.run()) for _ in range(3)]
    await asyncio.sleep(0)
    extractions.status = 500
    extractions.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 3
    assert extractions.runs == 1


async def test_an_undelivered_reply_is_stored_longer() -> None:
    extractions = Extractions()
    await extractions.run("delivered")
    extractions.gate.clear()
    leaving = asyncio.create_task(extractions.run("left"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    extractions.gate.set()
    await extractions.run("other")
    assert extractions.runs == 3
    extractions.clock.advance(DOCUMENTS.delivered_s + 1)
    assert await extractions.run("left") == "reply 2"
    assert await extractions.run("delivered", b"2") == "reply 4"  # the key is forgotten, so any body will do
