"""What the router adds to a stream it takes out again, and nothing else: the client sees what it asked for."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import PRICE, cloud, events, local, routing, settings
from spillway_router.testing.streams import DONE

BIG = 123456789012345678901234567890
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def chunk(delta: Any, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def stream(*bodies: Any) -> Answer:
    return Answer.stream(b"".join(map(event, bodies)) + DONE)


async def asked(answer: Answer, fields: dict[str, Any] | None = None, backend: Any = cloud, more: str = "") -> Any:
    async with FaultUpstream(answer) as upstream, routing(settings(backend(upstream), more=more)) as router:
        reply = await router.chat({"stream": True, **(fields or {})})
        return reply, upstream.seen[0].json


async def test_the_null_usage_of_every_event_is_taken_out() -> None:
    plain = [chunk({"content": 'say "usage":null'}), chunk({}, "stop", service_tier="default")]
    nulls = [{**plain[0], "usage": None}, {"id": "c", "usage": None, **plain[1]}]
    reply, _ = await asked(stream(*nulls, {"id": "c", "choices": [], "usage": USAGE}))
    assert [json.loads(data) for data in events(reply)[:-1]] == plain


async def test_a_client_that_asks_for_usage_gets_every_byte() -> None:
    answer = stream({**chunk({"content": "a"}), "usage": None}, chunk({}, "stop"))
    reply, body = await asked(answer, {"stream_options": {"include_usage": True}})
    assert b'"usage":null' in reply.content
    assert body["stream_options"] == {"include_usage": True}


async def test_continuous_usage_without_usage_stays_without_effect() -> None:
    reply, body = await asked(stream(chunk({}, "stop")), {"stream_options": {"continuous_usage_stats": True}})
    assert body["stream_options"] == {"include_usage": True}
    assert b"usage" not in reply.content


async def test_a_provider_that_tells_usage_anyway_is_not_asked_and_keeps_it() -> None:
    def openrouter(upstream: FaultUpstream) -> str:
        return f"{{name: o, provider: openrouter, model: m, api_key: k, base_url: '{upstream.url}', price: {PRICE}}}"

    answer = stream(chunk({"content": "a"}), chunk({}, "stop"), {"id": "c", "choices": [], "usage": USAGE})
    reply, body = await asked(answer, backend=openrouter)
    assert "stream_options" not in body
    assert reply.content == answer.body


async def test_the_fingerprint_of_the_removed_event_comes_with_the_finish() -> None:
    last = {"id": "c", "choices": [], "usage": USAGE, "system_fingerprint": "vllm-0.32"}
    reply, _ = await asked(stream(chunk({"content": "a"}), chunk({}, "stop"), last), backend=local)
    assert json.loads(events(reply)[1]) == chunk({}, "stop", system_fingerprint="vllm-0.32")
    reply, _ = await asked(stream(chunk({}, "stop", system_fingerprint="own"), last), backend=local)
    assert json.loads(events(reply)[0])["system_fingerprint"] == "own"


async def test_numbers_beyond_64_bits_stay_as_they_came_when_a_cost_is_added() -> None:
    last = {"id": "c", "choices": [], "usage": {**USAGE, "trace": BIG}, "span": BIG}
    reply, _ = await asked(stream(chunk({}, "stop"), last), {"stream_options": {"include_usage": True}})
    last_event = json.loads(events(reply)[1])
    assert (last_event["span"], last_event["usage"]["trace"]) == (BIG, BIG)
    assert last_event["usage"]["cost"] == pytest.approx(0.000007)
    assert b'"total_tokens":5,"trace":%d,"cost":' % BIG in reply.content


async def test_usage_over_several_data_lines_stays_one_event_when_a_cost_is_added() -> None:
    last = {"id": "c", "choices": [], "usage": USAGE}
    whole = stream(chunk({}, "stop"), last)
    answer = replace(whole, body=whole.body.replace(b'"choices":[],', b'"choices":[],\ndata: '))
    assert answer.body != whole.body
    reply, _ = await asked(answer, {"stream_options": {"include_usage": True}})
    lines = reply.content.split(b"\n\n")[1].split(b"\n")
    joined = b"\n".join(line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: "))
    assert json.loads(joined) == {**last, "usage": {**USAGE, "cost": pytest.approx(0.000007)}}


async def test_a_cost_takes_the_place_of_the_providers_own() -> None:
    last = {"id": "c", "choices": [], "usage": {**USAGE, "cost": 17.5, "more": 1}}
    reply, _ = await asked(stream(chunk({}, "stop"), last), {"stream_options": {"include_usage": True}})
    assert json.loads(events(reply)[1])["usage"] == {**USAGE, "cost": pytest.approx(0.000007), "more": 1}


@pytest.mark.parametrize("scored", [False, True])
async def test_numbers_beyond_64_bits_stay_in_whole_answers(scored: bool) -> None:
    choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop", "logprobs": {"content": []}}
    whole = Answer.json({"id": "c", "seed": BIG, "choices": [choice], "usage": USAGE})
    rule = "confidence: {threshold: 0.0, escalate_to: [local]}\n" if scored else ""
    async with FaultUpstream(whole) as upstream, routing(settings(local(upstream), more=rule)) as router:
        answer = (await router.chat(x_spillway_usage_cost="true")).json()
        assert answer["seed"] == BIG
        assert answer["usage"]["cost"] == 0
        assert (answer["choices"][0]["logprobs"] is None) == scored


async def test_numbers_beyond_64_bits_stay_in_scored_streams() -> None:
    score = {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]}
    first = chunk({"content": "a"}, seed=BIG)
    first["choices"][0]["logprobs"] = score
    rule = "confidence: {threshold: 0.0, escalate_to: [local]}\n"
    reply, body = await asked(stream(first, chunk({}, "stop")), backend=local, more=rule)
    assert body["logprobs"] is True
    last_event = json.loads(events(reply)[0])
    assert (last_event["seed"], last_event["choices"][0]["logprobs"]) == (BIG, None)


@pytest.mark.parametrize("late", [False, True])
async def test_usage_after_the_end_is_counted_and_not_forwarded(late: bool, tmp_path: Path) -> None:
    head = event(chunk({"content": "a"})) + event(chunk({}, "stop")) + DONE
    gate = asyncio.Event()
    answer = Answer.stream(head + event({"id": "c", "choices": [], "usage": USAGE}))
    answer = answer.pausing(len(head), gate) if late else answer
    async with FaultUpstream(answer) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        if late:
            asyncio.get_running_loop().call_later(0.05, gate.set)
        reply: httpx.Response = await router.chat({"stream": True})
        assert reply.content == head
        (row,) = router.rows(reply)
        assert (row.prompt_tokens, row.completion_tokens, row.status) == (3, 2, "ok")
        assert row.amount_nano == 3 * 1000 + 2 * 2000


async def test_a_stream_without_any_usage_still_ends(tmp_path: Path) -> None:
    head = event(chunk({"content": "a"})) + event(chunk({}, "stop")) + DONE
    async with (
        FaultUpstream(Answer.stream(head, end="hang")) as upstream,
        routing(settings(cloud(upstream)), tmp_path) as router,
    ):
        reply = await router.chat({"stream": True})
        assert reply.content == head
        (row,) = router.rows(reply)
        assert (row.status, row.completion_tokens, row.amount_nano) == ("ok", 1, row.estimated_nano)
        assert row.at_most_nano > row.amount_nano > 0
