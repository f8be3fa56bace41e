"""A backend that refuses or fails: where the request goes next, what the client gets, and how later requests fare."""

from __future__ import annotations

import asyncio
import json
import socket
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from spillway_router.testing import Answer, FaultUpstream, ManualClock
from spillway_router.testing.harness import Router, cloud, error_of, local, pair, routing, settings

WHOLE = Answer.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "beta"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
)
EPOCH = 1_800_000_000


def said_no(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer.json({"error": {"message": "no", "code": status}}, status, named)


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_of(router: Router, name: str) -> float:
    """Return the seconds for which a backend is not asked."""
    now = router.runtime.services.clock()
    return router.runtime.board.current(now).backends[name].limited_until - now


RETRY_AFTER = {
    "seconds": ("30", 30.0),
    "fraction": ("0.5", 0.5),
    "padded": (" 7 ", 7.0),
    "huge": ("99999999", 3600.0),
    "zero": ("0", 1.0),
    "negative": ("-5", 1.0),
    "past date": (formatdate(0, usegmt=True), 1.0),
    "far date": (formatdate(4_000_000_000, usegmt=True), 3600.0),
    "garbage": ("soon", 1.0),
    "empty": ("", 1.0),
    "not a number": ("nan", 1.0),
    "infinite": ("inf", 3600.0),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", RETRY_AFTER)
async def test_retry_after_is_honoured(form: str, stream: bool) -> None:
    value, wait = RETRY_AFTER[form]
    clock = ManualClock()
    async with (
        FaultUpstream(said_no(429, retry_after=value)) as busy,
        FaultUpstream(WHOLE) as free,
        routing(settings(cloud(busy, "a"), cloud(free, "b")), clock=clock) as router,
    ):
        if stream:
            free.script.append(Answer.stream(b'data: {"choices":[{"finish_reason":"stop"}]}\n\n'))
            assert (await router.chat({"stream": True})).status_code == 200
        else:
            reply = await router.chat()
            assert text_of(reply) == "beta"
            assert reply.headers["x-spillway-attempts"] == "2"
        assert wait_of(router, "a") == pytest.approx(wait)

        clock.advance(wait - 0.01)
        assert (await router.chat()).headers["x-spillway-attempts"] == "1"
        assert len(busy.seen) == 1
        busy.answer = WHOLE
        clock.advance(0.02)
        assert (await router.chat()).headers["x-spillway-backend"] == "a"


async def test_retry_after_as_a_date_counts_from_now() -> None:
    async with FaultUpstream() as busy, routing(settings(cloud(busy)), clock=ManualClock()) as router:
        busy.answer = said_no(429, retry_after=formatdate(router.runtime.services.wall() + 40, usegmt=True))
        reply = await router.chat()
        assert (reply.status_code, error_of(reply)["code"]) == (503, "overloaded")
        assert 38 <= int(reply.headers["retry-after"]) <= 40
        assert 38 <= wait_of(router, "cloud") <= 40


@pytest.mark.parametrize(("value", "wait_s"), [("7", 7), ("6.2", 7), ("86400", 60), ("junk", 1), ("0", 1)])
async def test_the_client_is_told_to_wait_at_most_a_minute(value: str, wait_s: int) -> None:
    async with (
        FaultUpstream(said_no(429, retry_after=value)) as busy,
        routing(settings(cloud(busy)), clock=ManualClock()) as router,
    ):
        for _ in range(2):  # by the provider first, then by what the board remembers of it
            reply = await router.chat()
            assert (reply.status_code, error_of(reply)["code"]) == (503, "overloaded")
            assert int(reply.headers["retry-after"]) == wait_s
            assert reply.headers["x-should-retry"] == "false"
        assert len(busy.seen) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 404, 401, 402, 403, 408])
async def test_a_failing_backend_is_replaced(status: int) -> None:
    async with (
        FaultUpstream(said_no(status)) as bad,
        FaultUpstream(WHOLE) as good,
        routing(settings(cloud(bad, "a"), cloud(good, "b"))) as router,
    ):
        reply = await router.chat()
        assert text_of(reply) == "beta"
        # Nothing is wrong with a backend that answers 404 for once: it doesn't serve this.
        words = ("routed", "alias,endpoint") if status == 404 else ("fallback", "alias,health")
        assert (reply.headers["x-spillway-decision"], reply.headers["x-spillway-reason"]) == words
        rows = router.rows(reply)
        waited = status == 504  # a gateway that gave up: the provider may have worked on it
        doubtful = status in (500, 502, 504, 520)  # nobody knows whether it is billed
        assert [(r.backend, r.amount_nano > 0, r.at_most_nano > 0) for r in rows] == [
            ("a", waited, doubtful),
            ("b", True, False),
        ]
        assert [(r.kind, r.attempt_no) for r in rows] == [("charged" if doubtful else "released", 1), ("charged", 2)]


@pytest.mark.parametrize(("status", "client_status"), [(400, 400), (413, 413), (422, 422), (418, 400)])
async def test_a_bad_request_is_not_asked_again(status: int, client_status: int) -> None:
    async with pair(said_no(status), WHOLE) as (_, other, router):
        reply = await router.chat()
        assert reply.status_code == client_status
        assert error_of(reply)["code"] == ("request_too_large" if client_status == 413 else "invalid_request")
        assert not other.seen


FINAL: dict[str, tuple[Answer, int, str]] = {
    "500": (said_no(500), 502, "upstream_error"),
    "401": (said_no(401), 502, "upstream_error"),
    "reset": (Answer(silent=True, end="rst"), 502, "upstream_error"),
    "cut": (Answer(b"x" * 50, cut=10, end="fin"), 502, "upstream_error"),
    "no JSON": (Answer(b"<html>", headers=(("content-type", "text/html"),)), 502, "upstream_error"),
    "no choices": (Answer.json({"choices": []}), 502, "upstream_error"),
    "error in a 200": (Answer.json({"error": {"message": "boom"}}), 502, "upstream_error"),
    "abort": (Answer.json({"choices": [{"finish_reason": "abort", "message": {}}]}), 502, "upstream_error"),
    "504": (said_no(504), 504, "upstream_timeout"),
    "silence": (Answer(silent=True, end="hang"), 504, "upstream_timeout"),
    "half an answer": (Answer(b"x" * 50, cut=10, end="hang"), 504, "upstream_timeout"),
    "429": (said_no(429), 503, "overloaded"),
}


ASKED_AGAIN = {"500", "reset", "cut", "429"}
"""What may be over in a moment: the last backend is asked once more."""
ONE_FAULT = {"500", "reset", "cut", "no JSON", "no choices", "error in a 200", "abort"}
"""What does not switch the client's own retry off."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", FINAL)
async def test_when_all_fail_the_last_word_is_told_and_final(name: str, stream: bool) -> None:
    answer, status, code = FINAL[name]
    more = "limits: {first_event_s: 0.2, answer_s: 0.2}\n"
    async with (
        FaultUpstream(answer) as one,
        FaultUpstream(answer) as two,
        routing(settings(cloud(one, "a"), cloud(two, "b"), more=more)) as router,
    ):
        reply = await router.chat({"stream": stream})
        assert (reply.status_code, error_of(reply)["code"]) == (status, code)
        again = name in ASKED_AGAIN
        assert reply.headers.get("x-should-retry") == (None if name in ONE_FAULT else "false")
        assert reply.headers["x-spillway-attempts"] == ("3" if again else "2")
        assert ("retry-after" in reply.headers) == (status == 503)
        assert (len(one.seen), len(two.seen)) == (1, 2 if again else 1)
        record = (await router.client.get(f"/v1/requests/{reply.headers['x-request-id']}")).json()
        assert (record["status"], record["code"], len(record["attempts"])) == (status, code, 3 if again else 2)


async def test_refused_connections_go_to_the_next_and_cost_nothing() -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    async with FaultUpstream(WHOLE) as good, routing(settings(cloud(dead, "a"), cloud(good, "b"))) as router:
        reply = await router.chat()
        assert text_of(reply) == "beta"
        assert [r.kind for r in router.rows(reply)] == ["released", "charged"]
    async with routing(settings(cloud(dead, "a"))) as router:
        reply = await router.chat()
        assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")


async def test_a_full_engine_is_overflow_and_not_a_failure() -> None:
    clock = ManualClock()
    async with pair(said_no(503), WHOLE, clock=clock) as (engine, _, router):
        for _ in range(30):  # far more than a breaker would stand, and more than the retry budget
            reply = await router.chat()
            assert text_of(reply) == "beta"
            assert reply.headers["x-spillway-decision"] == "overflow"
            assert reply.headers["x-spillway-reason"] == "queue"
            clock.advance(0.3)
        assert len(engine.seen) == 30
        engine.answer = WHOLE
        assert (await router.chat()).headers["x-spillway-decision"] == "local"


async def test_a_draining_engine_is_overflow() -> None:
    """While vLLM drains, it answers 200 with finish_reason abort and no text."""
    clock = ManualClock()
    abort: dict[str, Any] = {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "abort"}]}
    async with pair(Answer.json(abort), WHOLE, clock=clock) as (engine, _, router):
        for _ in range(5):
            reply = await router.chat()
            assert (text_of(reply), reply.headers["x-spillway-decision"]) == ("beta", "overflow")
            clock.advance(0.3)
        assert len(engine.seen) == 5


async def test_the_breaker_opens_and_lets_one_trial_through() -> None:
    clock = ManualClock()
    async with (
        FaultUpstream(said_no(500)) as bad,
        FaultUpstream(WHOLE) as good,
        routing(settings(cloud(bad, "a"), cloud(good, "b")), clock=clock) as router,
    ):
        for _ in range(6):
            assert text_of(await router.chat()) == "beta"
        assert len(bad.seen) == 3
        reply = await router.chat()
        assert reply.headers["x-spillway-attempts"] == "1"
        ready = (await router.client.get("/ready")).json()
        assert ready["backends"]["a"]["breaker_open"]

        clock.advance(1.01)  # half-open: one trial, which fails, opens it for longer
        for _ in range(3):
            assert text_of(await router.chat()) == "beta"
        assert len(bad.seen) == 4
        clock.advance(1.01)
        assert text_of(await router.chat()) == "beta"
        assert len(bad.seen) == 4
        bad.answer = WHOLE
        clock.advance(1.01)
        for _ in range(2):  # the trial succeeds and closes it
            assert (await router.chat()).headers["x-spillway-backend"] == "a"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_flight", [20, 90])
async def test_all_that_wait_at_an_engine_that_dies_are_answered_elsewhere(in_flight: int, stream: bool) -> None:
    dying = asyncio.Event()
    answer = Answer.stream(b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n') if stream else WHOLE
    more = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
    engine_line = "max_sequences: 1000, prefill_tokens_per_s: 1000000}"
    async with (
        FaultUpstream(Answer(silent=True, end="rst").after(dying)) as engine,
        FaultUpstream(answer) as other,
        routing(settings(local(engine)[:-1] + ", " + engine_line, cloud(other), more=more)) as router,
    ):
        asked = [asyncio.create_task(router.chat({"stream": stream})) for _ in range(in_flight)]
        await router.until(lambda: len(engine.seen) >= in_flight)
        dying.set()
        replies = await asyncio.gather(*asked)
        assert [reply.status_code for reply in replies] == [200] * in_flight
        assert {reply.headers["x-spillway-backend"] for reply in replies} == {"cloud"}


CAN_NOT_SERVE: dict[str, Answer] = {
    "bad key": Answer.json({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401),
    "no credit": Answer.json({"error": {"message": "no credit"}}, 402),
    "no quota": Answer.json(
        {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, 429
    ),
    "no such model": Answer.json(
        {"error": {"message": "The model `m` does not exist.", "code": "model_not_found"}}, 404
    ),
}


@pytest.mark.parametrize("name", CAN_NOT_SERVE)
async def test_a_backend_that_can_not_serve_costs_one_call_and_no_answer(name: str) -> None:
    clock = ManualClock()
    async with (
        FaultUpstream(CAN_NOT_SERVE[name]) as bad,
        FaultUpstream(WHOLE) as good,
        routing(settings(cloud(bad, "a"), cloud(good, "b")), clock=clock) as router,
    ):
        for _ in range(100):  # 50 requests a second for two seconds
            assert text_of(await router.chat()) == "beta"
            clock.advance(0.02)
        assert len(bad.seen) <= 3
        state = (await router.client.get("/ready")).json()["backends"]["a"]
        assert state["breaker_open"]
        assert state["reason"]
        bad.answer = WHOLE
        clock.advance(4.0)
        assert (await router.chat()).headers["x-spillway-backend"] == "a"


async def test_every_candidate_is_asked_before_a_request_fails() -> None:
    async with FaultUpstream(said_no(500)) as bad, FaultUpstream(WHOLE) as good:
        lines = [cloud(bad, f"b{i}") for i in range(6)]
        async with routing(settings(*lines, cloud(good, "good"))) as router:
            for _ in range(4):
                assert text_of(await router.chat()) == "beta"
            assert len(bad.seen) == 18  # three from each, then all breakers are open


async def test_a_candidate_that_others_found_dead_is_not_asked() -> None:
    """While a request waited for its first candidate, other requests opened the breaker of the second."""
    gate = asyncio.Event()
    async with (
        FaultUpstream(said_no(500).after(gate)) as slow,
        FaultUpstream(said_no(500)) as dead,
        FaultUpstream(WHOLE) as good,
        routing(settings(cloud(slow, "a"), cloud(dead, "b"), cloud(good, "c"))) as router,
    ):
        waiting = asyncio.create_task(router.chat())
        await slow.arrival()
        for _ in range(3):
            await router.chat({"model": "b"})
        asked = len(dead.seen)
        gate.set()
        assert text_of(await waiting) == "beta"
        assert len(dead.seen) == asked


@pytest.mark.parametrize("fault", ["500", "502", "429", "529", "reset"])
@pytest.mark.parametrize("stream", [False, True])
async def test_one_transient_fault_of_the_last_backend_is_not_seen(fault: str, stream: bool) -> None:
    broken = Answer(silent=True, end="rst") if fault == "reset" else said_no(int(fault))
    answer = Answer.stream(b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n') if stream else WHOLE
    async with FaultUpstream(answer) as only, routing(settings(cloud(only))) as router:
        only.script.append(broken)
        reply = await router.chat({"stream": stream})
        assert (reply.status_code, reply.headers["x-spillway-attempts"]) == (200, "2")
        assert [row.attempt_no for row in router.rows(reply)] == [1, 2]  # an attempt of its own, with its own hold


async def test_retry_after_beyond_the_promise_is_told_instead_of_waited_for() -> None:
    async with FaultUpstream(WHOLE) as only, routing(settings(cloud(only))) as router:
        only.script.append(said_no(429, retry_after="3"))
        reply = await router.chat()
        assert (reply.status_code, reply.headers["retry-after"], len(only.seen)) == (503, "3", 1)


async def test_one_transient_fault_does_not_switch_the_clients_retry_off() -> None:
    more = "slo: {ttft_ms: 10}\n"
    async with FaultUpstream(WHOLE) as only, routing(settings(cloud(only), more=more)) as router:
        only.script.append(said_no(500))
        reply = await router.chat()
        assert (reply.status_code, len(only.seen)) == (502, 1)
        assert "x-should-retry" not in reply.headers


async def test_retries_are_bounded_while_everything_fails() -> None:
    async with (
        FaultUpstream(said_no(500)) as one,
        FaultUpstream(said_no(500)) as two,
        routing(settings(cloud(one, "a"), cloud(two, "b"))) as router,
    ):
        replies = await asyncio.gather(*(router.chat() for _ in range(40)))
        replies += [await router.chat() for _ in range(60)]
        assert all(reply.status_code >= 500 for reply in replies)
        assert len(one.seen) + len(two.seen) <= 1.2 * len(replies)


async def test_one_callers_poison_does_not_take_the_engine_from_the_others() -> None:
    poison = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "poison"}]}).encode()
    async with FaultUpstream(WHOLE) as only, routing(settings(local(only))) as router:
        for _ in range(10):
            only.script.append(WHOLE)
            assert text_of(await router.chat()) == "beta"
            for _ in range(3):
                only.script.extend([said_no(500)] * 2)
                assert (await router.post(poison)).status_code == 502
                only.script.clear()
        assert text_of(await router.chat()) == "beta"


async def test_a_pinned_model_stays_where_it_is_pinned() -> None:
    async with pair(said_no(500), WHOLE) as (_, other, router):
        for model in ("local/m", "local"):
            reply = await router.chat({"model": model})
            assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
        assert not other.seen
        router.forget_failures()
        reply = await router.chat({"model": "cloud/cloud-m"})
        assert reply.headers["x-spillway-decision"] == "pinned"
        assert other.seen[-1].json["model"] == "cloud-m"
        stays = await router.chat({"provider": {"allow_fallbacks": False}})
        assert stays.status_code == 502


@pytest.mark.parametrize("unit", ["requests", "tokens"])
async def test_nothing_remaining_sends_the_next_request_elsewhere(unit: str) -> None:
    clock = ManualClock()
    names = {f"x-ratelimit-remaining-{unit}": "0", f"x-ratelimit-reset-{unit}": "2m30s", "retry-after": "1"}
    async with (
        FaultUpstream(Answer(WHOLE.body, 200, (*WHOLE.headers, *names.items()))) as spent,
        FaultUpstream(WHOLE) as free,
        routing(settings(cloud(spent, "a"), cloud(free, "b")), clock=clock) as router,
    ):
        assert (await router.chat()).headers["x-spillway-backend"] == "a"
        reply = await router.chat()
        assert reply.headers["x-spillway-backend"] == "b"
        clock.advance(149)
        assert (await router.chat()).headers["x-spillway-backend"] == "b"
        clock.advance(2)
        assert (await router.chat()).headers["x-spillway-backend"] == "a"


async def test_no_backend_is_up() -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    async with routing(settings(local(dead))) as router:
        reply = await router.chat()
        assert (reply.status_code, error_of(reply)["code"]) == (503, "no_backend")
        assert 1 <= int(reply.headers["retry-after"]) <= 60
        assert (await router.client.get("/ready")).status_code == 503
        assert (await router.client.get("/ping")).status_code == 204
        assert (await router.client.get("/health")).status_code == 200


async def test_an_unknown_model_is_told() -> None:
    async with pair(WHOLE) as (_, _, router):
        reply = await router.chat({"model": "gpt-99"})
        assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")
        assert error_of(reply)["param"] == "model"
        assert "auto" in error_of(reply)["message"]


async def test_a_backend_that_answers_only_404_leaves_the_rotation() -> None:
    clock = ManualClock()
    async with (
        FaultUpstream(said_no(404)) as gone,
        FaultUpstream(WHOLE) as good,
        routing(settings(cloud(gone, "a"), cloud(good, "b")), clock=clock) as router,
    ):
        for _ in range(30):
            assert text_of(await router.chat()) == "beta"
        assert len(gone.seen) == 20
        reason = router.runtime.board.current(clock()).backends["a"].breaker_reason
        assert reason == "it does not have its model (HTTP 404)"
        gone.answer = WHOLE
        clock.advance(4.0)
        assert (await router.chat()).headers["x-spillway-backend"] == "a"


async def test_a_404_between_answers_leaves_the_backend_where_it_is() -> None:
    async with pair(WHOLE, WHOLE) as (engine, _, router):
        for _ in range(30):
            engine.script.extend([said_no(404), WHOLE])
            await router.chat()
            assert (await router.chat()).headers["x-spillway-backend"] == "local"


OVERLOAD_EVENTS = {
    "messages": ("anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "responses": ("openai", {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded"}}}),
    "chat/completions": ("generic", {"error": {"message": "full", "type": "overloaded_error", "code": 529}}),
}


@pytest.mark.parametrize("endpoint", OVERLOAD_EVENTS)
async def test_an_overload_event_before_content_is_no_failure(endpoint: str) -> None:
    provider, event = OVERLOAD_EVENTS[endpoint]
    prompt = {"input": "x"} if endpoint == "responses" else {"messages": [{"role": "user", "content": "x"}]}
    full = Answer.stream(b"data: " + json.dumps(event).encode() + b"\n\n")
    async with FaultUpstream(full) as upstream:
        line = cloud(upstream, "a").replace("generic", provider)
        async with routing(settings(line), clock=ManualClock()) as router:
            reply = await router.post({"model": "auto", "max_tokens": 9, "stream": True, **prompt}, f"/v1/{endpoint}")
            assert reply.status_code == 503
            assert wait_of(router, "a") > 0
            (row,) = router.rows(reply)
            assert row.kind == "released"


async def test_an_overload_in_a_whole_answer_of_200_is_no_failure() -> None:
    full = Answer.json({"error": {"type": "overloaded_error", "message": "Overloaded"}})
    async with FaultUpstream(full) as cloudy, routing(settings(cloud(cloudy)), clock=ManualClock()) as router:
        assert (await router.chat()).status_code == 503
        assert wait_of(router, "cloud") > 0
