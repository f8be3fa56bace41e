"""llama-cpp-python's server behind the router, where it is installed: one request at a time, and what ends a stream."""

from __future__ import annotations

import asyncio
import json

from tests.engines.processes import serving_llama_cpp_python
from tests.proxy.answers import answer, said

from spillway_router.core.routing.model import BackendSignals
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, cloud, error_of, events, routing, settings

SLO = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
HELLO = [{"role": "user", "content": "hello"}]
LONG = {"messages": HELLO, "max_tokens": 900, "min_tokens": 900, "temperature": 0, "stream": True}
STRONG = answer("strong")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


def line(url: str, more: str = "") -> str:
    return f"{{name: local, provider: llamacpp-python, model: demo, base_url: '{url}', context_tokens: 1024{more}}}"


def signals(router: Router) -> BackendSignals:
    return router.runtime.board.current(router.runtime.services.clock()).backends["local"]


async def test_answers_errors_and_what_it_can_not_do() -> None:
    with serving_llama_cpp_python() as url:
        async with FaultUpstream(STRONG) as other, routing(settings(line(url), cloud(other), more=SLO)) as router:
            await router.until(lambda: signals(router).health == "up")
            rates = signals(router).rates
            assert rates is not None
            assert rates.max_sequences == 1
            whole = await router.chat({"messages": HELLO, "max_tokens": 6, "temperature": 0})
            assert whole.headers["x-spillway-backend"] == "local"
            streamed = await router.chat({"messages": HELLO, "max_tokens": 6, "temperature": 0, "stream": True})
            chunks = [json.loads(data) for data in events(streamed)[:-1]]
            text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
            assert text == said(whole)
            assert [row.completion_tokens for row in router.rows(whole)] == [6]
            # Its streams tell no usage, so that the row has an estimate.
            assert router.rows(streamed)[0].completion_tokens > 0
            for words in (300, 900):  # a stream of these would be empty there, with a 200
                long = [{"role": "user", "content": "hello world " * words}]
                reply = await router.chat({"messages": long, "max_tokens": 6})
                assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "context")
            reply = await router.chat({"messages": HELLO, "max_tokens": 6, "response_format": SCHEMA})
            assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "capability")
            odd = await router.chat({"messages": HELLO, "max_tokens": 2, "stop": {"a": 1}})
            assert odd.status_code < 500
            assert not signals(router).breaker_open


async def test_confidence_comes_from_its_log_probabilities() -> None:
    more = "confidence: {threshold: 0.0, escalate_to: [cloud]}\n" + SLO
    with serving_llama_cpp_python() as url:
        async with (
            FaultUpstream(STRONG) as other,
            routing(settings(line(url), cloud(other), more=more)) as router,
        ):
            kept = await router.chat({"messages": HELLO, "max_tokens": 6, "temperature": 0})
            assert 0 < float(kept.headers["x-spillway-confidence"]) < 1
            assert '"logprob"' not in kept.text


async def test_the_routers_own_questions_end_no_stream() -> None:
    """Started as usual, it would end this stream at any request, also for its list of models."""
    with serving_llama_cpp_python() as url:
        async with routing(settings(line(url), more=SLO)) as router:
            await router.chat({"messages": HELLO, "max_tokens": 2})
            reply = await router.chat(LONG)
            assert events(reply)[-1] == b"[DONE]"


async def test_a_stream_that_another_request_ends_is_told_by_one_error() -> None:
    with serving_llama_cpp_python() as url:
        async with routing(settings(line(url), more=SLO)) as router:
            await router.chat({"messages": HELLO, "max_tokens": 2})
            received = bytearray()
            async with router.client.stream("POST", "/v1/chat/completions", json={"model": "auto", **LONG}) as reply:
                intruder: asyncio.Task[object] | None = None
                async for chunk in reply.aiter_bytes():
                    received += chunk
                    if intruder is None and received.count(b'"content"') > 3:
                        direct = router.client.get(f"{url}/models")
                        intruder = asyncio.create_task(direct)
            assert intruder is not None
            await intruder
            last = [block for block in bytes(received).split(b"\n\n") if block][-1]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_interrupted"
            assert b"data: [DONE]" not in received


async def test_requests_at_once_take_turns_where_it_does_not_interrupt() -> None:
    with serving_llama_cpp_python("--interrupt_requests", "false") as url:
        async with routing(settings(line(url), more=SLO)) as router:
            await router.until(lambda: signals(router).health == "up")
            body = {"messages": HELLO, "max_tokens": 60, "min_tokens": 60, "temperature": 0, "stream": True}
            replies = await asyncio.gather(*[router.chat(body) for _ in range(4)])
            assert [events(reply)[-1] for reply in replies] == [b"[DONE]"] * 4


async def test_embeddings_where_it_was_not_started_for_them_blame_the_endpoint() -> None:
    with serving_llama_cpp_python() as url:
        async with routing(settings(line(url), more=SLO)) as router:
            for _ in range(4):
                reply = await router.post({"model": "local", "input": "hello"}, "/v1/embeddings")
                assert "embedding=True" in error_of(reply)["message"]
            assert (await router.chat({"messages": HELLO, "max_tokens": 2})).status_code == 200
