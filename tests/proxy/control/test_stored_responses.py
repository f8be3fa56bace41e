"""Responses that a provider stores: read, deleted and followed at the backend that made them, by their own key only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.proxy.control.helpers import bearer

from spillway_router.core.routing.model import Refusal
from spillway_router.ledger.errors import LedgerUnavailableError
from spillway_router.ledger.tables.stored_responses import KEPT_MS, StoredResponse
from spillway_router.proxy.memory.stored_responses import LONGEST_ID, StoredResponses
from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import PRICE, Router, cloud, error_of, local, routing, settings
from spillway_router.testing.openai_wire import event
from spillway_router.testing.tables import MemoryResponses

KEYS = "keys: {required: true}\n"
MADE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
    "usage": {"input_tokens": 3, "output_tokens": 1},
}
STREAMED = Answer.stream(
    event({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress"}}, "response.created")
    + event({"type": "response.output_text.delta", "delta": "hi"}, "response.output_text.delta")
    + event({"type": "response.completed", "response": MADE}, "response.completed")
)
ASKED = {"model": "auto", "input": "Which eye?"}


async def make(router: Router, body: dict[str, Any] | None = None, **headers: str) -> Any:
    reply = await router.post({**ASKED, **(body or {})}, "/v1/responses", **headers)
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_is_read_and_deleted_where_it_was_made(stream: bool) -> None:
    async with (
        FaultUpstream(Answer.json({"error": {"message": "down"}}, 500)) as first,
        FaultUpstream(STREAMED if stream else Answer.json(MADE)) as second,
        routing(settings(cloud(first, "a"), cloud(second, "b"))) as router,
    ):
        await make(router, {"stream": stream})
        second.gets["/v1/responses/resp_1?include=x"] = MADE
        second.gets["/v1/responses/resp_1/input_items"] = {"data": []}
        got = await router.client.get("/v1/responses/resp_1?include=x&secret=1")
        assert got.json() == MADE
        assert got.headers["x-spillway-backend"] == "b"
        assert (await router.client.get("/v1/responses/resp_1/input_items")).json() == {"data": []}
        second.answer = Answer.json({**MADE, "status": "cancelled"})
        cancelled = await router.client.post("/v1/responses/resp_1/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert second.seen[-1].path == "/v1/responses/resp_1/cancel"
        second.answer = Answer.json({"id": "resp_1", "deleted": True})
        assert (await router.client.delete("/v1/responses/resp_1")).json()["deleted"] is True
        assert (await router.client.get("/v1/responses/resp_1")).status_code == 404


async def test_another_key_finds_nothing() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker), more=KEYS)) as router:
        mine, other = bearer(router, "inference"), bearer(router, "inference", "other")
        await make(router, **mine)
        asked = len(maker.seen)
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            reply = await router.client.request(method, f"/v1/responses/resp_1{path}", headers=other)
            assert (reply.status_code, error_of(reply)["code"]) == (404, "response_not_found")
        follow = {**ASKED, "previous_response_id": "resp_1"}
        reply = await router.post(follow, "/v1/responses", **other)
        assert (reply.status_code, error_of(reply)["code"]) == (404, "response_not_found")
        assert len(maker.seen) == asked
        assert (await router.post(follow, "/v1/responses", **mine)).status_code == 200
        assert (await router.client.get("/v1/responses/resp_1")).status_code == 401


async def test_the_next_turn_goes_to_the_account_that_made_the_last_one() -> None:
    async with FaultUpstream(Answer.json(MADE)) as first, FaultUpstream(Answer.json(MADE)) as second:
        # `big` is another model of the account behind `b`.
        big = f"{{name: big, provider: generic, model: big-m, api_key: k, base_url: '{second.url}', price: {PRICE}}}"
        aliases = "aliases: {auto: {chain: [a, b]}, larger: {chain: [a, big]}}\n"
        async with routing(settings(cloud(first, "a"), cloud(second, "b"), big, more=aliases)) as router:
            await make(router, {"model": "b"})
            for model, backend in (("auto", "b"), ("larger", "big")):
                reply = await make(router, {"model": model, "previous_response_id": "resp_1"})
                assert reply.headers["x-spillway-backend"] == backend
            assert first.seen == []
            reply = await router.post({**ASKED, "model": "a", "previous_response_id": "resp_1"}, "/v1/responses")
            assert reply.status_code == 400
            assert "does not have the response" in error_of(reply)["message"]


async def test_an_unknown_earlier_response_goes_the_usual_way() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        await make(router, {"previous_response_id": "resp_from_before_the_restart"})
        assert maker.seen[0].json["previous_response_id"] == "resp_from_before_the_restart"


async def test_a_response_that_is_not_stored_is_not_remembered() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        await make(router, {"store": False})
        assert (await router.client.get("/v1/responses/resp_1")).status_code == 404


async def test_a_background_answer_is_refused_before_it_costs() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        reply = await router.post({**ASKED, "background": True}, "/v1/responses")
        error = error_of(reply)
        assert (reply.status_code, error["param"]) == (400, "background")
        assert "stream" in error["message"]
        assert maker.seen == []
        assert (await router.post({**ASKED, "background": False}, "/v1/responses")).status_code == 200


@pytest.mark.parametrize("response_id", ["..%2f..%2fmodels", "a b", "x" * 300, "resp_unknown"])
async def test_an_id_that_nobody_made_is_not_asked_for(response_id: str) -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        reply = await router.client.get(f"/v1/responses/{response_id}")
        assert reply.status_code == 404
        assert maker.seen == []


async def test_a_stored_response_is_not_streamed_and_its_backends_errors_are_told() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        await make(router)
        assert (await router.client.get("/v1/responses/resp_1?stream=true")).status_code == 400
        assert (await router.client.get("/v1/responses/resp_1")).status_code == 404  # deleted at the provider


async def test_a_response_is_known_after_a_restart_and_to_other_routers_of_the_ledger(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json(MADE)) as a, FaultUpstream(STREAMED) as b:
        config = settings(cloud(a, "a"), cloud(b, "b"), more=KEYS)
        async with routing(config, tmp_path) as first, routing(config, tmp_path) as beside:
            mine, other = bearer(first, "inference"), bearer(first, "inference", "other")
            await make(first, {"model": "b", "stream": True}, **mine)
            b.gets["/v1/responses/resp_1"] = MADE
            b.answer = Answer.json(MADE)
            await other_routers_find_it(beside, mine, other)
        async with routing(config, tmp_path) as later:
            await other_routers_find_it(later, mine, other)
            assert (await later.client.delete("/v1/responses/resp_1", headers=mine)).status_code == 200
        async with routing(config, tmp_path) as last:
            assert (await last.client.get("/v1/responses/resp_1", headers=mine)).status_code == 404
        assert a.seen == []


async def other_routers_find_it(router: Router, mine: dict[str, str], other: dict[str, str]) -> None:
    auth = router.runtime.services.config().auth
    await router.until(lambda: not any(isinstance(auth.caller(h, time.monotonic()), Refusal) for h in (mine, other)))
    assert (await router.client.get("/v1/responses/resp_1", headers=mine)).json() == MADE
    assert (await router.client.get("/v1/responses/resp_1", headers=other)).status_code == 404
    follow = {**ASKED, "previous_response_id": "resp_1"}
    assert (await router.post(follow, "/v1/responses", **other)).status_code == 404
    reply = await router.post(follow, "/v1/responses", **mine)
    assert (reply.status_code, reply.headers["x-spillway-backend"]) == (200, "b")


async def test_what_follows_a_private_response_stays_private(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json(MADE)) as engine, FaultUpstream(Answer.json(MADE)) as abroad:
        config = settings(local(engine), cloud(abroad))
        async with routing(config, tmp_path) as router:
            await make(router, x_spillway_privacy="local-only")
        async with routing(settings(cloud(abroad)), tmp_path) as router:  # its maker is gone
            reply = await router.post({**ASKED, "previous_response_id": "resp_1"}, "/v1/responses")
            assert (reply.status_code, error_of(reply)["code"]) == (503, "local_only_unavailable")
            assert abroad.seen == []


async def test_the_ledger_holds_no_text_of_a_stored_response(tmp_path: Path) -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker)), tmp_path) as router:
        await make(router, {"input": "the-secret-question"})
        stored = router.ledger.responses.get("resp_1", int(time.time() * 1000))
        assert stored is not None
        assert (stored.key_id, stored.backend, stored.private) == ("", "cloud", False)
    assert b"the-secret-question" not in b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())


class BrokenTable(MemoryResponses):
    def put(self, records: Sequence[StoredResponse]) -> None:
        raise LedgerUnavailableError("the disk is full")

    def get(self, response_id: str, now_ms: int) -> StoredResponse | None:
        raise LedgerUnavailableError("the disk is full")


async def test_without_its_database_an_answer_comes_and_an_unknown_one_is_not_followed() -> None:
    async with FaultUpstream(Answer.json(MADE)) as maker, routing(settings(cloud(maker))) as router:
        router.runtime.services.responses._table = BrokenTable()
        await make(router)
        await make(router, {"previous_response_id": "resp_1"})  # known to this process
        reply = await router.post({**ASKED, "previous_response_id": "resp_2"}, "/v1/responses")
        assert (reply.status_code, error_of(reply)["code"]) == (503, "ledger_unavailable")
        assert (await router.client.get("/v1/responses/resp_2")).status_code == 503


async def test_responses_that_end_together_are_stored_in_one_write() -> None:
    sizes: list[int] = []

    class Counted(MemoryResponses):
        def put(self, records: Sequence[StoredResponse]) -> None:
            sizes.append(len(records))
            super().put(records)

    responses = StoredResponses(Counted(), lambda: 1.0)
    await asyncio.gather(*(responses.add(f"r{n}", "k", "b", private=False) for n in range(50)))
    await responses.add("x" * (LONGEST_ID + 1), "k", "b", private=False)
    await responses.add("r1\r\nset-cookie: x", "k", "b", private=False)
    assert sum(sizes) == 50
    assert len(sizes) <= 2


async def test_a_response_is_forgotten_after_its_time_also_where_it_is_remembered() -> None:
    clock = ManualClock()
    responses = StoredResponses(MemoryResponses(), clock)
    await responses.add("r1", "k", "b", private=False)
    clock.advance(KEPT_MS / 1000 - 1)
    assert await responses.get("r1") is not None
    clock.advance(1)
    assert await responses.get("r1") is None
