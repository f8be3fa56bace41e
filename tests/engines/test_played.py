"""Engines that can't be had here, played by their recorded shapes: Ollama, text-embeddings-inference, SGLang."""

from __future__ import annotations

import json

import pytest
from tests.proxy.answers import answer, said

from spillway_router.core.routing.model import BackendSignals
from spillway_router.testing import FaultUpstream
from spillway_router.testing.harness import Router, cloud, error_of, routing, serving, settings
from spillway_router.testing.other_engines import PlayedOllama, PlayedSglang, PlayedTextEmbeddings

SLO = "slo: {ttft_ms: 60000, tpot_ms: 10000}\n"
HELLO = [{"role": "user", "content": "hello"}]
STRONG = answer("strong")


def signals(router: Router, name: str = "local") -> BackendSignals:
    return router.runtime.board.current(router.runtime.services.clock()).backends[name]


def words(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "word " * number}]


@pytest.mark.limit_s(60)
async def test_a_prompt_that_ollama_would_cut_is_not_sent_there() -> None:
    """It answers a prompt that is too long as if nothing were missing, once it has dropped half of it."""
    ollama = PlayedOllama("llama3.2", 400)
    async with serving(ollama) as url, FaultUpstream(STRONG) as other:
        line = f"{{name: local, provider: ollama, model: 'llama3.2', base_url: '{url}/v1'}}"
        async with routing(settings(line, cloud(other), more=SLO)) as router:
            first = await router.chat({"messages": HELLO, "max_tokens": 5})
            assert said(first) == "read 1 of 1 words"
            ollama.model = "llama3.2:latest"  # as it names what it has in memory
            await router.until(lambda: signals(router).engine_context_tokens == 400)
            for number in (420, 600, 4000):
                reply = await router.chat({"messages": words(number), "max_tokens": 5})
                assert (said(reply), reply.headers["x-spillway-reason"]) == ("strong", "context")
            assert said(await router.chat({"messages": words(60), "max_tokens": 5})) == "read 60 of 60 words"
            assert ollama.prompts == [1, 60]


async def test_a_prompt_that_fits_nowhere_is_refused_and_not_cut() -> None:
    ollama = PlayedOllama("llama3.2:3b", 400)
    async with serving(ollama) as url:
        line = f"{{name: local, provider: ollama, model: 'llama3.2:3b', base_url: '{url}/v1', context_tokens: 400}}"
        async with routing(settings(line, more=SLO)) as router:
            reply = await router.chat({"messages": words(600), "max_tokens": 5})
            assert reply.status_code == 400
            assert "400" in error_of(reply)["message"]
            assert ollama.prompts == []


async def test_ollama_runs_one_request_at_once_unless_it_is_said_otherwise() -> None:
    async with serving(PlayedOllama("m", 400)) as url:
        line = "{name: %s, provider: ollama, model: m, base_url: '" + url + "/v1'%s}"
        config = settings(line % ("local", ""), line % ("wide", ", max_sequences: 4"), more=SLO)
        async with routing(config) as router:
            at_once = [signals(router, name).rates for name in ("local", "wide")]
            assert [rates and rates.max_sequences for rates in at_once] == [1, 4]


async def test_a_full_queue_of_ollama_is_load_and_no_failure() -> None:
    ollama = PlayedOllama("m", 400)
    async with serving(ollama) as url, FaultUpstream(STRONG) as other:
        line = f"{{name: local, provider: ollama, model: m, base_url: '{url}/v1'}}"
        async with routing(settings(line, cloud(other), more=SLO)) as router:
            ollama.is_full = True
            reply = await router.chat({"messages": HELLO})
            assert (said(reply), reply.headers["x-spillway-decision"]) == ("strong", "overflow")
            assert not signals(router).breaker_open


async def test_embeddings_of_tei_are_split_by_its_batch_and_each_input_has_its_context() -> None:
    tei = PlayedTextEmbeddings()
    async with serving(tei) as url:
        line = f"{{name: local, provider: tei, model: BAAI/bge-m3, base_url: '{url}/v1'}}"
        async with routing(settings(line, more=SLO)) as router:
            await router.until(lambda: signals(router).engine_context_tokens == 512)
            inputs = [f"{number} " * 40 for number in range(70)]
            reply = await router.post({"model": "local", "input": inputs}, "/v1/embeddings")
            assert reply.status_code == 200, reply.text
            assert [entry["embedding"][0] for entry in reply.json()["data"]] == [len(text) for text in inputs]
            assert tei.batches == [32, 32, 6]
            assert reply.json()["usage"]["prompt_tokens"] == 70 * 40


async def test_what_tei_refuses_blames_the_request_or_its_load() -> None:
    tei = PlayedTextEmbeddings(most_inputs=8)  # fewer than usual, and the router was not stored
    async with serving(tei) as url:
        line = f"{{name: local, provider: tei, model: BAAI/bge-m3, base_url: '{url}/v1'}}"
        async with routing(settings(line, more=SLO)) as router:
            for inputs, why in ((["a"] * 9, "maximum allowed batch size 8"), ("word " * 600, "512")):
                for _ in range(4):
                    reply = await router.post({"model": "local", "input": inputs}, "/v1/embeddings")
                    assert reply.status_code in (400, 413), reply.text
                    assert why in error_of(reply)["message"]
            assert not signals(router).breaker_open
            tei.is_full = True
            full = await router.post({"model": "local", "input": "a"}, "/v1/embeddings")
            assert (full.status_code, error_of(full)["code"]) == (503, "overloaded")
            tei.is_full = False


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_of_sglang_is_load_also_inside_a_200(stream: bool) -> None:
    sglang = PlayedSglang(["a"])
    async with serving(sglang) as url, FaultUpstream(STRONG) as other:
        line = f"{{name: local, provider: sglang, model: m, base_url: '{url}/v1'}}"
        async with routing(settings(line, cloud(other), more=SLO)) as router:
            await router.until(lambda: signals(router).health == "up")
            sglang.waiting, sglang.running = 3, 8
            await router.until(lambda: signals(router).backlog is not None and signals(router).backlog.in_flight == 11)
            rates = signals(router).rates
            assert rates is not None
            assert rates.kv_capacity_tokens == 40_000
            sglang.is_full = True
            record = await router.chat({"messages": HELLO, "stream": stream})
            request = record.headers["x-request-id"]
            stored = json.loads((await router.client.get(f"/v1/requests/{request}", headers=router.admin)).text)
            assert stored["attempts"][0]["outcome"] == "overloaded"
            assert not signals(router).breaker_open
