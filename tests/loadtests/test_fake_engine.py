"""The fake engine: the simulator's service curve, behind vLLM's API, with clients that come and go."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import replace

import httpx
import pytest
from loadtests.fake_cloud.corpus import digest
from loadtests.fake_engine.app import EngineSetup, FakeVllm
from loadtests.fake_engine.batch import Batch, BatchedRequest
from loadtests.fake_engine.live import LiveEngine
from loadtests.simulator.policies import AlwaysLocal
from loadtests.simulator.simulate import Timing, simulate
from loadtests.simulator.trace import TraceRequest, load

from spillway_router.core.replay.engine import EngineModel
from spillway_router.signals.engines import VLLM
from spillway_router.signals.exposition import ExpositionReader

FAST = 0.01
"""Stretch of time in tests of the API: a step of 10 ms takes 0.1 ms."""


def first_tokens(requests: list[TraceRequest], model: EngineModel) -> list[float]:
    """Return the seconds to the first token of each request through `Batch`; arrivals are seen between steps."""
    batch, now, coming = Batch(model), 0.0, list(reversed(requests))
    numbers: dict[int, TraceRequest] = {}
    ttft: dict[int, float] = {}
    keep = []
    while coming or not batch.idle:
        if batch.idle:
            now = max(now, coming[-1].arrival_s)
        while coming and coming[-1].arrival_s <= now:
            request = coming.pop()
            sequence = BatchedRequest(request.prompt_tokens, request.output_tokens)
            keep.append(sequence)
            numbers[id(sequence)] = request
            batch.add(sequence)
        now += batch.begin().duration_s
        for sequence in batch.complete():
            if sequence.produced == 1:
                request = numbers[id(sequence)]
                ttft[request.number] = now - request.arrival_s
    assert batch.kv_tokens == 0
    return [ttft[request.number] for request in requests]


@pytest.mark.parametrize("name", ["conv", "code"])
def test_it_takes_the_same_time_as_the_simulator(name: str) -> None:
    model = EngineModel()
    requests = load(name, limit=150)
    expected = simulate(requests, AlwaysLocal(), model, Timing.ITERATION).ttft_s
    assert first_tokens(requests, model) == pytest.approx(expected)


def test_requests_removed_at_any_moment_leave_no_kv_behind() -> None:
    rng = random.Random(7)
    batch = Batch(replace(EngineModel(), kv_capacity_tokens=4096, sequences=4))
    alive: list[BatchedRequest] = []
    for _ in range(400):
        if rng.random() < 0.4:
            alive.append(BatchedRequest(rng.randint(1, 3000), rng.randint(1, 20)))
            batch.add(alive[-1])
        if alive and rng.random() < 0.2:
            batch.remove(alive.pop(rng.randrange(len(alive))))
        if not batch.idle:
            batch.begin()
            if alive and rng.random() < 0.2:
                batch.remove(alive.pop(rng.randrange(len(alive))))
            batch.complete()
        assert len(batch.running) <= 4
        assert batch.kv_tokens == sum(one.kv_tokens for one in batch.running)
    for one in alive:
        batch.remove(one)
    assert batch.idle
    assert batch.kv_tokens == 0


def test_a_prompt_that_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the most are 190000"):
        Batch(EngineModel()).add(BatchedRequest(190_001, 1))


class Running:
    """The application in this process, with its engine stepping."""

    def __init__(self, setup: EngineSetup, queue_cap: int = 512, scale: float = FAST, sequences: int = 256) -> None:
        self.engine = LiveEngine(Batch(replace(EngineModel(), sequences=sequences)), scale, queue_cap)
        self.app = FakeVllm(self.engine, setup)

    async def __aenter__(self) -> httpx.AsyncClient:
        self.stepping = asyncio.create_task(self.engine.run())
        transport = httpx.ASGITransport(app=self.app)  # type: ignore[arg-type]
        self.client = httpx.AsyncClient(transport=transport, base_url="http://engine")
        return self.client

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        self.stepping.cancel()
        await asyncio.gather(self.stepping, return_exceptions=True)


def chat(text: str, **more: object) -> Mapping[str, object]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], **more}


async def test_whole_and_streamed_answers_say_the_same_and_count_the_same() -> None:
    setup = EngineSetup(corpus={digest("what?"): "It is 23.40 mm."}, stream_interval=3)
    async with Running(setup) as client:
        whole = (await client.post("/v1/chat/completions", json=chat("what?", logprobs=True))).json()
        options = {"include_usage": True}
        body = chat("what?", stream=True, stream_options=options)
        lines = (await client.post("/v1/chat/completions", json=body)).text.splitlines()
    assert whole["choices"][0]["message"]["content"] == "It is 23.40 mm."
    assert whole["choices"][0]["finish_reason"] == "stop"
    scores = whole["choices"][0]["logprobs"]["content"]
    assert "".join(score["token"] for score in scores) == "It is 23.40 mm."
    events = [json.loads(line[6:]) for line in lines if line and line != "data: [DONE]"]
    assert lines[-2] == "data: [DONE]"
    text = "".join(choice["delta"]["content"] for event in events for choice in event["choices"])
    assert text == "It is 23.40 mm."
    assert events[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == len(scores)


async def test_a_full_queue_is_a_503_and_an_unknown_model_a_404() -> None:
    running = Running(EngineSetup(), queue_cap=1, scale=1.0, sequences=1)
    async with running as client:
        async with asyncio.TaskGroup() as group:
            body = chat("long", max_tokens=20)
            tasks = [group.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(5)]
        statuses = sorted(task.result().status_code for task in tasks)
        assert statuses[0] == 200
        assert statuses[-1] == 503
        assert running.engine.counters.rejections == statuses.count(503)
        missing = await client.post("/v1/chat/completions", json={**chat("x"), "model": "other"})
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == 404


async def test_the_metrics_page_has_what_the_router_reads() -> None:
    async with Running(EngineSetup()) as client:
        await client.post("/v1/chat/completions", json=chat("one two three", max_tokens=5))
        page = (await client.get("/metrics")).text
    sample = ExpositionReader(VLLM).read(page)
    assert sample.missing == ()
    assert sample.load is not None
    assert (sample.load.running, sample.load.waiting) == (0, 0)
    assert sample.progress[0].marks[3] == 5  # generated tokens
    assert sample.kv_capacity_tokens == 200_000


async def test_embeddings_are_the_same_for_the_same_text() -> None:
    async with Running(EngineSetup()) as client:
        body = {"model": "demo", "input": ["a", "b", "a"]}
        data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    vectors = [row["embedding"] for row in data]
    assert vectors[0] == vectors[2] != vectors[1]
