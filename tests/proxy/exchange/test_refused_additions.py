"""What only the router added is taken back when a backend refuses it, and is not sent to that backend again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spillway_router.proxy.memory.refused_additions import KEPT_S, MOST_ENTRIES, RefusedAdditions, RequestShape
from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import cloud, error_of, local, routing, settings
from spillway_router.testing.streams import DONE, data

TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]
RULE = "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
NO_LOGPROBS = Answer.json({"error": {"code": 400, "message": "logprobs is not supported with tools + stream"}}, 400)
NO_OPTIONS = Answer.json(
    {
        "detail": [
            {"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}
        ]
    },
    422,
)
STREAM = Answer.stream(data({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}) + DONE)


async def test_logprobs_for_confidence_are_taken_back_and_not_sent_again() -> None:
    async with (
        FaultUpstream(STREAM) as engine,
        FaultUpstream() as strong,
        routing(settings(local(engine), cloud(strong), more=RULE)) as router,
    ):
        engine.script.append(NO_LOGPROBS)
        first = await router.chat({"stream": True, "tools": TOOLS})
        second = await router.chat({"stream": True, "tools": TOOLS})
        plain = await router.chat({"stream": True})
        assert [reply.headers["x-spillway-backend"] for reply in (first, second, plain)] == ["local"] * 3
        assert [reply.headers["x-spillway-attempts"] for reply in (first, second, plain)] == ["1"] * 3
        asked = [arrival.json.get("logprobs") for arrival in engine.seen]
        assert asked == [True, None, None, True]  # refused, taken back, left out; other requests are still scored
        assert "top_logprobs" not in engine.seen[1].json
        record = (await router.client.get(f"/v1/requests/{second.headers['x-request-id']}")).json()
        assert record["attempts"][0]["left_out"] == ["logprobs"]


async def test_usage_options_are_taken_back_within_the_same_hold(tmp_path: Path) -> None:
    more = "budgets: [{scope: all, period: day, limit_usd: '0.0085'}]\n"
    async with (
        FaultUpstream(STREAM) as strict,
        routing(settings(cloud(strict), more=more), tmp_path) as router,
    ):
        strict.script.append(NO_OPTIONS)
        reply = await router.chat({"stream": True})
        assert reply.status_code == 200, reply.text
        assert [arrival.json.get("stream_options") for arrival in strict.seen] == [{"include_usage": True}, None]
        (row,) = router.rows(reply)
        # The stream tells no usage: its whole bound may have been spent. Two holds would not have fitted under the cap.
        assert (row.kind, row.attempt_no, row.status) == ("charged", 1, "ok")
        assert row.at_most_nano > 0.0085e9 / 2


async def test_what_the_client_sent_itself_is_not_taken_back() -> None:
    async with FaultUpstream(NO_OPTIONS) as strict, routing(settings(cloud(strict))) as router:
        reply = await router.chat({"stream": True, "stream_options": {"include_usage": True}})
        assert reply.status_code in (400, 422)
        assert error_of(reply)["code"] == "invalid_request"
        assert len(strict.seen) == 1


async def test_a_refusal_of_both_sends_is_the_clients_and_is_not_remembered() -> None:
    """A client must not switch confidence off for others by a request whose error repeats the field's name."""
    echo = Answer.json({"error": {"message": "bad schema near 'logprobs'", "code": "invalid_schema"}}, 400)
    async with (
        FaultUpstream(echo) as engine,
        FaultUpstream(echo) as strong,
        routing(settings(local(engine), cloud(strong), more=RULE)) as router,
    ):
        assert (await router.chat()).status_code == 400
        assert (await router.chat()).status_code == 400
        assert [arrival.json.get("logprobs") for arrival in engine.seen] == [True, None, True, None]
        assert router.runtime.services.memory.refused_additions.is_empty


async def test_a_reload_sends_everything_again(tmp_path: Path) -> None:
    async with FaultUpstream(STREAM) as strict, routing(settings(cloud(strict)), tmp_path) as router:
        strict.script.append(NO_OPTIONS)
        await router.chat({"stream": True})
        assert await router.runtime.reload("a test") == []
        await router.chat({"stream": True})
        assert strict.seen[-1].json["stream_options"] == {"include_usage": True}


async def test_a_local_stream_without_usage_counts_its_events(tmp_path: Path) -> None:
    async with FaultUpstream(STREAM) as engine, routing(settings(local(engine)), tmp_path) as router:
        (row,) = router.rows(await router.chat({"stream": True}))
        assert row.prompt_tokens > 0
        assert row.completion_tokens > 0


@pytest.mark.parametrize("passed_s", [KEPT_S - 1, KEPT_S])
def test_a_refusal_is_remembered_for_a_day(passed_s: float) -> None:
    clock, refused = ManualClock(), RefusedAdditions()
    shape = RequestShape("a", "chat", stream=True, tools=False)
    refused.remember(shape, "usage", clock())
    clock.advance(passed_s)
    left_out: Any = refused.of(shape, clock())
    assert left_out == ({"usage"} if passed_s < KEPT_S else set())


def test_the_memory_of_refusals_is_bounded() -> None:
    refused = RefusedAdditions()
    for number in range(MOST_ENTRIES + 5):
        refused.remember(RequestShape(f"b{number}", "chat", stream=False, tools=False), "usage", 0.0)
    assert refused.of(RequestShape("b4", "chat", stream=False, tools=False), 1.0) == set()
    assert refused.of(RequestShape("b5", "chat", stream=False, tools=False), 1.0) == {"usage"}
