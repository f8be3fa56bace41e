"""A paid call of unknown cost is charged an estimate, marked with what it can be at most; a hold covers one call."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from spillway_router.core.routing.filters import TEMPLATE_TOKENS
from spillway_router.ledger.verify import verify
from spillway_router.testing import Answer, FakeEngine, FaultUpstream
from spillway_router.testing.harness import MESSAGES, cloud, local, routing, serving, settings

FEW = {"max_tokens": 50}
NOTHING = ("released", False, False)
WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
)


def openai(upstream: FaultUpstream, name: str = "cloud") -> str:
    """Return a provider that stops billing when a call is cancelled."""
    return cloud(upstream, name).replace("provider: generic", "provider: openai")


def event(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()


async def test_a_paid_call_on_a_connection_that_was_closed_is_a_second_attempt_with_a_hold_of_its_own(
    tmp_path: Path,
) -> None:
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        first = await router.chat(FEW)
        assert first.status_code == 200
        upstream.script.append(replace(WHOLE, silent=True, end="fin"))  # it may have worked on it
        reply = await router.chat(FEW)
        assert reply.status_code == 200
        assert reply.headers["x-spillway-attempts"] == "2"
        lost, answered = router.rows(reply)
        assert (lost.attempt_no, lost.status, answered.attempt_no, answered.status) == (1, "error", 2, "ok")
        holds = [e for e in router.ledger.entries_of(reply.headers["x-request-id"]) if e.kind == "reserved"]
        assert [hold.attempt_no for hold in holds] == [1, 2]
        assert 0 < lost.amount_nano < lost.at_most_nano == holds[0].reserved_nano
        assert answered.at_most_nano == 0


async def test_the_provider_gets_the_name_of_a_paid_call_and_an_engine_does_not(tmp_path: Path) -> None:
    async with (
        FaultUpstream(WHOLE) as engine,
        FaultUpstream(WHOLE) as other,
        routing(settings(local(engine), cloud(other)), tmp_path) as router,
    ):
        paid = await router.chat({"model": "cloud/cloud-m", **FEW})
        await router.chat({"model": "local/m", **FEW})
        assert other.seen[-1].headers["x-client-request-id"] == f"{paid.headers['x-request-id']}.1"
        assert all("x-client-request-id" not in arrival.headers for arrival in engine.seen)


async def test_a_broken_stream_costs_what_its_text_is(tmp_path: Path) -> None:
    """60 bytes arrive in 3 events, which are 15 tokens of the usual length; counting events would charge a fifth."""
    body = event("x" * 20) * 3
    upstream = FaultUpstream(Answer.stream(body, end="fin"))
    async with upstream, routing(settings(openai(upstream)), tmp_path) as router:
        reply = await router.chat({"stream": True, "max_tokens": 4000})
        (row,) = router.rows(reply)
        assert row.status == "error"
        assert row.completion_tokens == 15
        assert 0 < row.prompt_tokens <= len(json.dumps(MESSAGES)) + TEMPLATE_TOKENS


async def test_an_answer_that_breaks_before_its_first_word_may_be_billed(tmp_path: Path) -> None:
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        said = b'data: {"error": {"message": "overloaded"}}\n\n'
        for body, estimated in ((b": thinking\n\n", True), (b"data: {nonsense\n\n", True), (said, False)):
            upstream.answer = Answer.stream(body)
            reply = await router.chat({"stream": True, **FEW})
            assert reply.status_code >= 500
            router.forget_failures()
            await router.until(lambda reply=reply: bool(router.rows(reply)))  # type: ignore[misc]
            (row,) = router.rows(reply)
            # An error that the provider reports should be free, but nobody knows.
            assert (row.kind, row.amount_nano > 0, row.at_most_nano > 0) == ("charged", estimated, True)


async def test_a_gateway_that_gave_up_waiting_may_have_been_billed(tmp_path: Path) -> None:
    async with FaultUpstream() as upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        for status, end in ((504, ("charged", True, True)), (500, ("charged", False, True)), (429, NOTHING)):
            upstream.answer = Answer.json({"error": {"message": "no"}}, status)
            reply = await router.chat(FEW)
            router.forget_failures()
            await router.until(lambda reply=reply: bool(router.rows(reply)))  # type: ignore[misc]
            assert {(r.kind, r.amount_nano > 0, r.at_most_nano > 0) for r in router.rows(reply)} == {end}


async def test_a_client_that_leaves_at_the_very_end_pays_what_was_used(tmp_path: Path) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
    body = event("x") + event("", "stop") + b"data: %b\n\n" % json.dumps(usage).encode()
    upstream = FaultUpstream(Answer.stream(body, end="hang"))
    async with upstream, routing(settings(cloud(upstream)), tmp_path) as router:
        async with router.client.stream(
            "POST", "/v1/chat/completions", json={"model": "auto", "messages": MESSAGES, "stream": True, **FEW}
        ) as reply:
            request_id = reply.headers["x-request-id"]
            async for _ in reply.aiter_raw():
                break
        await router.until(lambda: len(router.ledger.entries_of(request_id)) == 2)
        charged = router.ledger.entries_of(request_id)[-1]
        assert (charged.status, charged.amount_nano) == ("aborted", 20_000)


async def test_a_client_that_leaves_during_an_escalation_leaves_a_discarded_draft(tmp_path: Path) -> None:
    rule = "confidence: {threshold: 0.8, escalate_to: [cloud]}\n"
    engine, gate = FakeEngine(["we", "ak"], (-1.0, -2.0)), asyncio.Event()
    async with (
        serving(engine) as url,
        FaultUpstream(WHOLE.after(gate)) as strong,
        routing(settings(local(url + "/v1"), cloud(strong), more=rule), tmp_path) as router,
    ):
        leaving = asyncio.create_task(router.chat(FEW))
        name = (await strong.arrival()).headers["x-client-request-id"].partition(".")[0]
        leaving.cancel()
        await router.until(lambda: len(router.ledger.entries_of(name)) == 3)
        closing = {e.attempt_no: e for e in router.ledger.entries_of(name) if e.kind == "charged"}
        assert (closing[1].backend, closing[1].status, closing[1].completion_tokens) == ("local", "discarded", 2)
        assert (closing[2].backend, closing[2].status) == ("cloud", "aborted")
        assert closing[2].at_most_nano > closing[2].amount_nano > 0
        assert verify(router.ledger).holds


async def test_bounds_cover_what_the_body_does_not_show(tmp_path: Path) -> None:
    """These are images by address, several prompts, best_of, and a bound that the endpoint does not know."""
    async with FaultUpstream(WHOLE) as upstream, routing(settings(cloud(upstream)), tmp_path) as router:

        async def bound(path: str, body: dict[str, object]) -> int:
            reply = await router.post({"model": "auto", **body}, path)
            held = [e for e in router.ledger.entries_of(reply.headers["x-request-id"]) if e.kind == "reserved"]
            return held[0].reserved_nano

        chat, text = "/v1/chat/completions", "/v1/completions"
        plain = await bound(chat, {"messages": MESSAGES, "max_tokens": 10})
        image = {"type": "image_url", "image_url": {"url": "https://example.com/eye.png"}}
        shown = [{"role": "user", "content": [image]}]
        assert await bound(chat, {"messages": shown, "max_tokens": 10}) > plain + 49_000 * 1000
        both = await bound(chat, {"messages": MESSAGES, "max_completion_tokens": 1, "max_tokens": 10})
        assert both > plain
        unbound = await bound(chat, {"messages": MESSAGES, "max_output_tokens": 1})
        assert unbound > 4096 * 2000
        one = await bound(text, {"prompt": "a", "max_tokens": 100})
        assert await bound(text, {"prompt": ["a", "b", "c"], "max_tokens": 100}) >= one + 200 * 2000
        assert await bound(text, {"prompt": "a", "best_of": 4, "max_tokens": 100}) >= one + 300 * 2000
        assert await bound(text, {"prompt": [1, 2, 3], "max_tokens": 100}) < one + 100 * 2000
        said = {"input": "a", "max_output_tokens": 10}
        kept = await bound("/v1/responses", {**said, "previous_response_id": "resp_1"})
        assert kept > await bound("/v1/responses", said) + 900_000 * 1000
