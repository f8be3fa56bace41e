"""What a client and a record say of a request: from its state alone."""

from __future__ import annotations

from typing import cast

import orjson
import pytest
from tests.proxy.exchange.scene import RecordingClient, scene

from spillway_router.core.money.tariff import Usage
from spillway_router.core.routing.model import Decision, Outcome, Refusal, Removed
from spillway_router.proxy.exchange.exchange import run
from spillway_router.proxy.exchange.outcomes import final_refusal
from spillway_router.proxy.exchange.presentation import response_headers, summary, trailing_event
from spillway_router.proxy.exchange.record import build_record, publish
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, settings

NOWHERE = "http://127.0.0.1:9/v1"
BOTH = settings(local(NOWHERE), cloud(NOWHERE))
OK = Outcome("ok", 200, usage=Usage(3, 2))


async def test_headers_summary_and_record_tell_the_same() -> None:
    async with scene(BOTH) as stage:
        state = stage.state("local")
        attempt = await stage.opened(state, "local")
        state.reasons, state.confidence = ("queue", "slo"), 0.51234
        attempt.close(OK)
        state.commit(attempt)
        headers = b"".join(response_headers(state, attempt)).decode()
        assert "x-spillway-backend: local\r\nx-spillway-model: m\r\n" in headers
        assert "x-spillway-decision: local\r\nx-spillway-reason: queue,slo\r\nx-spillway-attempts: 1\r\n" in headers
        assert headers.endswith("x-spillway-confidence: 0.5123\r\n")
        assert summary(state) == {
            "decision": "local",
            "reasons": ("queue", "slo"),
            "backend": "local",
            "model": "m",
            "confidence": 0.5123,
        }
        record = build_record(state)
        assert (record.backend, record.decided, record.reasons) == ("local", "local", ("queue", "slo"))
        assert [a.no for a in record.attempts] == [1]
        await state.durable()


async def test_a_refusal_names_no_backend() -> None:
    async with scene(BOTH) as stage:
        headers = b"".join(response_headers(stage.state(), None))
        assert headers.startswith(b"x-spillway-attempts: 0\r\nx-spillway-overhead-ms: ")
        assert b"backend" not in headers


async def test_a_trailing_event_has_the_frame_of_its_stream() -> None:
    async with scene(BOTH) as stage:
        extension = trailing_event(stage.state("local"), {"id": "c", "model": "m"})
        event = orjson.loads(extension.event.removeprefix(b"data: "))
        assert (event["id"], event["choices"], event["spillway"]["decision"]) == ("c", [], "local")
        assert extension.member["backend"] == ""


async def test_a_record_is_kept_and_given_to_the_hooks() -> None:
    async with scene(BOTH) as stage:
        record = build_record(stage.state("local"))
        publish(stage.services, record)
        assert stage.services.records.get("req_1") is record
        assert stage.hooked == [record]


@pytest.mark.parametrize(
    ("removed", "status", "code"), [(False, 502, "upstream_error"), (True, 503, "local_only_unavailable")]
)
def test_a_private_request_is_refused_as_one(removed: bool, status: int, code: str) -> None:
    kept_local = (Removed("cloud", "privacy", "it is private"),) if removed else ()
    decision = Decision(kind="local", candidates=(), reasons=(), removed=kept_local, policy="v1")
    refusal = final_refusal(Refusal(502, "upstream_error", "The backend failed."), decision)
    assert (refusal.status, refusal.code) == (status, code)


@pytest.mark.parametrize(
    ("first", "decided", "reasons"),
    [
        pytest.param(Answer.json({}, 500), "fallback", ("health",), id="a failure"),
        pytest.param(Answer.json({"error": {"message": "full"}}, 503), "overflow", ("queue",), id="a full queue"),
        pytest.param(Answer.json({"error": {"message": "slow down"}}, 429), "overflow", ("queue",), id="a limit"),
    ],
)
async def test_the_decision_is_named_after_what_happened(first: Answer, decided: str, reasons: tuple[str, ...]) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}]}
    async with (
        FaultUpstream(first) as engine,
        FaultUpstream(Answer.json(whole)) as other,
        scene(settings(local(engine), cloud(other))) as stage,
    ):
        state = stage.state("local", "cloud", client=RecordingClient(body=b'{"model":"auto","messages":[]}'))
        await run(state)
        client = cast("RecordingClient", state.client)
        assert (client.status, client.header("x-spillway-decision")) == (200, decided)
        assert (state.decided, state.reasons) == (decided, reasons)
        assert [attempt.number for attempt in state.attempts] == [1, 2]
        await state.durable()
