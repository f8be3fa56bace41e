"""Responses that a provider stores: read, deleted and followed at the backend that made them, by their own key only."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proxy.control.helpers import bearer

from spillway_router.proxy.memory.stored_responses import KEPT_S, MOST_RESPONSES, StoredResponse, StoredResponses
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import PRICE, Router, cloud, error_of, routing, settings
from spillway_router.testing.openai_wire import event

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


def test_the_memory_of_responses_is_bounded_in_number_and_time() -> None:
    responses = StoredResponses()
    for number in range(MOST_RESPONSES + 1):
        responses.add(f"r{number}", StoredResponse("k", "b", 0.0))
    responses.add("x" * 1000, StoredResponse("k", "b", 0.0))
    assert responses.get("r0", 1.0) is None
    assert responses.get("x" * 1000, 1.0) is None
    assert responses.get("r1", KEPT_S) is not None
    assert responses.get("r1", KEPT_S + 1) is None
