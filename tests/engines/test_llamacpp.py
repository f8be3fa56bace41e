"""llama.cpp's own server, as PyPI has it built (xllamacpp), behind the router: real slots, pages, streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from tests.engines.processes import LlamaServer, serving_llama
from tests.proxy.answers import answer, said

from spillway_router.core.routing.model import BackendSignals
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import Router, cloud, error_of, events, routing, settings
from spillway_router.testing.streams import chat

SLO = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}]
LONG = {"messages": HELLO, "max_tokens": 900, "ignore_eos": True, "temperature": 0}
STRONG = answer("strong")


def line(server: LlamaServer, more: str = "") -> str:
    return f"{{name: local, provider: llamacpp, model: demo, base_url: '{server.url}'{more}}}"


def signals(router: Router) -> BackendSignals:
    return router.runtime.board.current(router.runtime.services.clock()).backends["local"]


async def said_its_abilities(router: Router) -> None:
    """Wait until the engine has said what it can do."""
    await router.until(lambda: signals(router).engine_context_tokens is not None and bool(signals(router).engine_lacks))


def content(reply: httpx.Response) -> str:
    """Return the text of a stream of chat chunks."""
    chunks = [json.loads(data) for data in events(reply) if data != b"[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_it_says_its_context_its_slots_and_what_its_template_drops(llama: LlamaServer) -> None:
    """The demo's template has no place for tools: llama.cpp would drop them and answer as if there were none."""
    async with FaultUpstream(STRONG) as other, routing(settings(line(llama), cloud(other), more=SLO)) as router:
        await said_its_abilities(router)
        seen = signals(router)
        assert (seen.engine_context_tokens, seen.engine_lacks) == (1024, {"tools", "vision"})
        assert seen.rates is not None
        assert seen.rates.max_sequences == 2
        plain = await router.chat({"messages": HELLO, "max_tokens": 4})
        assert plain.headers["x-spillway-backend"] == "local"
        reply = await router.chat({"messages": HELLO, "max_tokens": 4, "tools": TOOLS})
        assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "capability")


async def test_a_lower_number_of_requests_at_once_is_kept(llama: LlamaServer) -> None:
    async with routing(settings(line(llama, ", max_sequences: 1"), more=SLO)) as router:
        await said_its_abilities(router)
        rates = signals(router).rates
        assert rates is not None
        assert rates.max_sequences == 1


async def test_whole_and_streamed_answers_are_those_of_the_engine_with_its_usage(llama: LlamaServer) -> None:
    body: Mapping[str, Any] = {"model": "demo", "messages": HELLO, "max_tokens": 12, "temperature": 0}
    async with httpx.AsyncClient(timeout=60) as client, routing(settings(line(llama), more=SLO)) as router:
        direct = (await client.post(f"{llama.url}/chat/completions", json=body)).json()
        text = direct["choices"][0]["message"]["content"]
        whole = await router.chat(body)
        assert said(whole) == text
        streamed = await router.chat({**body, "stream": True})
        assert content(streamed) == text
        assert events(streamed)[-1] == b"[DONE]"
        engine_usage = direct["usage"]["prompt_tokens"], direct["usage"]["completion_tokens"]
        for reply in (whole, streamed):
            assert [(row.prompt_tokens, row.completion_tokens) for row in router.rows(reply)] == [engine_usage]
        # No usage was asked for, and none arrives.
        assert not any(b'"usage"' in data for data in events(streamed))
        asked = await router.chat({**body, "logprobs": True, "top_logprobs": 2})
        assert len(asked.json()["choices"][0]["logprobs"]["content"]) == 12


@pytest.mark.parametrize("stream", [False, True])
async def test_its_log_probabilities_give_a_confidence(stream: bool, llama: LlamaServer) -> None:
    """The same answer is kept below its confidence and replaced above it; nobody sees the log-probabilities."""
    body = {"messages": HELLO, "max_tokens": 8, "temperature": 0, "stream": stream}

    def rule(threshold: float) -> str:
        return f"confidence: {{threshold: {threshold}, escalate_to: [cloud]}}\n{SLO}"

    async with FaultUpstream(Answer.stream(chat("strong").body) if stream else STRONG) as other:
        async with routing(settings(line(llama), cloud(other), more=rule(0.0))) as router:
            await said_its_abilities(router)
            kept = await router.chat(body)
            assert kept.headers["x-spillway-backend"] == "local"
            assert '"logprob"' not in kept.text
            confidence = float(kept.headers["x-spillway-confidence"])
            assert 0 < confidence < 1
        async with routing(settings(line(llama), cloud(other), more=rule(0.999999))) as router:
            await said_its_abilities(router)
            assert (await router.chat(body)).headers["x-spillway-decision"] == "escalated"


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/v1/responses", {"input": "hello", "max_output_tokens": 6}, "response.completed"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 6}, "message_stop"),
    ],
)
async def test_it_speaks_the_other_protocols(path: str, body: Mapping[str, Any], end: str, llama: LlamaServer) -> None:
    async with routing(settings(line(llama), more=SLO)) as router:
        whole = await router.post({"model": "auto", **body}, path)
        assert whole.status_code == 200, whole.text
        assert whole.json()["usage"]["output_tokens"] == 6
        streamed = await router.post({"model": "auto", "stream": True, **body}, path)
        assert json.loads(events(streamed)[-1])["type"] == end
        assert [row.completion_tokens for row in router.rows(streamed)] == [6]


async def test_tokens_are_counted_by_it(llama: LlamaServer) -> None:
    async with routing(settings(line(llama), more=SLO)) as router:
        reply = await router.post({"model": "auto", "messages": HELLO}, "/v1/messages/count_tokens")
        assert reply.json() == {"input_tokens": 18}


async def test_a_prompt_too_long_for_a_slot_goes_to_the_cloud(llama: LlamaServer) -> None:
    async with FaultUpstream(STRONG) as other, routing(settings(line(llama), cloud(other), more=SLO)) as router:
        await said_its_abilities(router)
        for words in (150, 400, 3000):  # the estimate alone keeps the longest from being sent
            text = "hello world " * words
            reply = await router.chat({"messages": [{"role": "user", "content": text}], "max_tokens": 3})
            assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "context")
        assert reply.headers["x-spillway-attempts"] == "1"
        assert not signals(router).breaker_open


async def test_more_answers_than_slots_are_another_backends(llama: LlamaServer) -> None:
    two = {"messages": HELLO, "max_tokens": 3, "n": 2}
    many = {"messages": HELLO, "max_tokens": 3, "n": 9}
    async with FaultUpstream(STRONG) as other, routing(settings(line(llama), cloud(other), more=SLO)) as router:
        assert len((await router.chat(two)).json()["choices"]) == 2
        reply = await router.chat(many)
        assert reply.headers["x-spillway-attempts"] == "2"
        assert not signals(router).breaker_open


async def test_its_connections_end_after_a_hundred_requests_and_no_request_is_lost(llama: LlamaServer) -> None:
    """Its HTTP library closes a connection after 100 requests and after 5 s of idleness."""
    async with routing(settings(line(llama), more=SLO)) as router:
        for number in range(220):
            reply = await router.chat({"messages": HELLO, "max_tokens": 1, "stream": number % 2 == 1})
            assert reply.status_code == 200, (number, reply.text)


async def test_a_client_that_leaves_frees_the_slot(llama: LlamaServer) -> None:
    async with httpx.AsyncClient(timeout=60) as direct, routing(settings(line(llama), more=SLO)) as router:
        async with router.client.stream(
            "POST", "/v1/chat/completions", json={"model": "auto", "stream": True, **LONG}
        ) as reply:
            async for _ in reply.aiter_bytes():
                break
        async with asyncio.timeout(20):
            while any(slot["is_processing"] for slot in (await direct.get(f"{llama.root}/slots")).json()):
                await asyncio.sleep(0.02)


@pytest.mark.limit_s(180)
async def test_what_others_ask_of_it_counts_and_what_finds_no_slot_overflows() -> None:
    """With one slot and long answers of others before it, the next request leaves: it would wait for many seconds."""
    tight = "slo: {ttft_ms: 3000, tpot_ms: 10000}\n"
    with serving_llama("--slots", "1") as server:
        async with (
            FaultUpstream(STRONG) as other,
            httpx.AsyncClient(timeout=120) as direct,
            routing(settings(line(server), cloud(other), more=tight)) as router,
        ):
            await said_its_abilities(router)
            assert (await router.chat({"messages": HELLO, "max_tokens": 2})).headers["x-spillway-backend"] == "local"
            stop = asyncio.Event()
            others = [asyncio.create_task(_keep_busy(direct, server, stop)) for _ in range(4)]
            try:
                await router.until(lambda: signals(router).backlog.waiting_first_token >= 2)
                reply = await router.chat({"messages": HELLO, "max_tokens": 300})
                assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "queue")
            finally:
                stop.set()
                await asyncio.gather(*others)
            await router.until(lambda: signals(router).backlog.in_flight == 0)
            back = await router.chat({"messages": HELLO, "max_tokens": 2})
            assert back.headers["x-spillway-backend"] == "local"


async def _keep_busy(client: httpx.AsyncClient, server: LlamaServer, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await client.post(f"{server.url}/chat/completions", json={"model": "demo", **LONG})


async def test_without_a_metrics_page_its_slots_say_what_runs(caplog: pytest.LogCaptureFixture) -> None:
    with serving_llama("--slots", "2", "--no-metrics") as server:
        async with httpx.AsyncClient(timeout=120) as direct, routing(settings(line(server), more=SLO)) as router:
            stop = asyncio.Event()
            others = [asyncio.create_task(_keep_busy(direct, server, stop)) for _ in range(2)]
            try:
                await router.until(lambda: signals(router).backlog.in_flight == 2)
                await router.until(lambda: "start llama-server with --metrics" in caplog.text)
            finally:
                stop.set()
                await asyncio.gather(*others)


async def test_it_dies_in_an_answer_and_comes_back() -> None:
    with serving_llama("--slots", "2") as server:
        async with FaultUpstream(STRONG) as other, routing(settings(line(server), cloud(other), more=SLO)) as router:
            await said_its_abilities(router)
            async with router.client.stream(
                "POST", "/v1/chat/completions", json={"model": "auto", "stream": True, **LONG}
            ) as reply:
                received, killed = b"", False
                async for chunk in reply.aiter_bytes():
                    received += chunk
                    if not killed and received.count(b'"content":"') > 3:
                        server.kill()
                        killed = True
            last = [block for block in received.split(b"\n\n") if block][-1]
            assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_interrupted"
            assert b"[DONE]" not in received
            elsewhere = await router.chat({"messages": HELLO, "max_tokens": 3})
            assert said(elsewhere) == "strong"
            server.start_again()
            await router.until(lambda: signals(router).health == "up")
            router.forget_failures("local")
            again = await router.chat({"messages": HELLO, "max_tokens": 3})
            assert again.headers["x-spillway-backend"] == "local"


async def test_embeddings_and_their_faults() -> None:
    """An input that is too long for the engine is a 500 there, and takes the engine from nobody."""
    config = (
        "backends:\n"
        "  - {name: local, provider: llamacpp, model: demo, base_url: '%s', endpoints: [embeddings]}\n"
        "  - {name: talker, provider: llamacpp, model: demo, base_url: '%s', embedding_space: other}\n"
    )
    with serving_llama("--slots", "1", "--embeddings") as server, serving_llama("--slots", "1") as talker:
        async with routing(config % (server.url, talker.url) + SLO) as router:
            wanted = {"model": "local", "input": ["hello", "world"]}
            floats = (await router.post(wanted, "/v1/embeddings")).json()
            assert [len(entry["embedding"]) for entry in floats["data"]] == [256, 256]
            assert floats["usage"]["prompt_tokens"] > 0
            packed = (await router.post({**wanted, "encoding_format": "base64"}, "/v1/embeddings")).json()
            assert all(isinstance(entry["embedding"], str) for entry in packed["data"])
            for _ in range(4):
                long = await router.post({"model": "local", "input": "hello " * 200}, "/v1/embeddings")
                assert long.status_code == 400, long.text
            assert not signals(router).breaker_open
            # It would give its usual 256 values, which is no answer to the question.
            short = await router.post({**wanted, "dimensions": 8}, "/v1/embeddings")
            assert short.status_code >= 400, short.text
            none = await router.post({"model": "talker", "input": "hello"}, "/v1/embeddings")
            assert "--embeddings" in error_of(none)["message"]
            chat = await router.chat({"model": "talker", "messages": HELLO, "max_tokens": 2})
            assert chat.status_code == 200, chat.text
