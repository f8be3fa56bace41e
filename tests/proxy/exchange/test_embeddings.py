"""Embeddings through the router: one space, batches that are split and joined, and both encodings."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import openai
import pytest

from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing import openai_wire as wire
from spillway_router.testing.harness import Router, error_of, routing, settings
from spillway_router.testing.upstream import Arrival

ALIASES = "aliases: {embed: {chain: [engine, cloud]}}\n"


def vector_of(text: str) -> list[float]:
    """Return what the fakes embed a text as, in numbers that 32 bits hold exactly."""
    return [float(len(text)), 0.5, -0.25]


def embedded(arrival: Arrival) -> Answer:
    """Embed each input, in the encoding that was asked for; one token each."""
    body = arrival.json
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors: list[Any] = [vector_of(text)[: body.get("dimensions") or 3] for text in inputs]
    if body.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack(f"<{len(v)}f", *v)).decode() for v in vectors]
    return Answer.json(wire.embeddings(body["model"], vectors, len(inputs)))


def always_floats(arrival: Arrival) -> Answer:
    """Embed as a server that does not know `encoding_format`."""
    body = {name: value for name, value in arrival.json.items() if name != "encoding_format"}
    return embedded(Arrival(arrival.path, {}, wire.dump(body)))


def refuses_base64(arrival: Arrival) -> Answer:
    """Embed as a server that refuses the field."""
    if "encoding_format" in arrival.json:
        return Answer.json(wire.error("encoding_format is not supported", param="encoding_format"), 400)
    return embedded(arrival)


def backends(engine: FaultUpstream, cloud: FaultUpstream, cloud_more: str = "", engine_more: str = "") -> str:
    """Return an engine and a cloud, which say by `more` what their vectors are."""
    return settings(
        f"{{name: engine, provider: vllm, local: true, model: bge, base_url: '{engine.url}'{engine_more}}}",
        f"{{name: cloud, provider: generic, model: bge, api_key: k, base_url: '{cloud.url}',"
        f" price: {{input_per_million: '1', output_per_million: '0'}}{cloud_more}}}",
        more=ALIASES,
    )


SAME = ", embedding_space: bge"


async def embed(router: Router, text: Any, **fields: Any) -> httpx.Response:
    return await router.post({"model": "embed", "input": text, **fields}, "/v1/embeddings")


async def test_a_cloud_of_the_same_space_takes_over_and_one_of_another_never_does() -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        cloud.choose = embedded
        async with routing(backends(engine, cloud, SAME, SAME)) as router:
            assert (await embed(router, "a")).headers["x-spillway-backend"] == "cloud"
        for more in (", embedding_space: other", ""):
            cloud.seen.clear()
            chain = ALIASES.replace("engine, cloud", "engine")  # such a chain is refused, so a hint asks for the cloud
            text = backends(engine, cloud, more, SAME).replace(ALIASES, chain)
            async with routing(text) as router:
                reply = await embed(router, "a", models=["cloud"], provider={"order": ["cloud"]})
            assert (reply.status_code, error_of(reply)["code"]) == (502, "upstream_error")
            assert not cloud.seen


async def test_without_an_engine_the_client_gets_503_and_not_another_space() -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        cloud.choose = embedded
        text = backends(engine, cloud, "", SAME).replace("chain: [engine, cloud]", "chain: [engine]")
        async with routing(text) as router:
            router.runtime.board.health("engine", "down", "is down")
            reply = await embed(router, "a", models=["cloud"])
            explained = await router.post({"model": "embed", "input": "a", "models": ["cloud"]}, "/v1/route/explain")
        assert (reply.status_code, error_of(reply)["code"]) == (503, "no_backend")
        assert "lie in the space" in error_of(reply)["message"]
        assert "space" in explained.text
        assert not cloud.seen


@pytest.mark.parametrize("count", [1, 2, 3, 7])
async def test_a_batch_is_split_and_joined_in_order(count: int) -> None:
    texts = ["x" * (i + 1) for i in range(count)]
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        cloud.choose = embedded
        async with routing(backends(engine, cloud, f"{SAME}, max_inputs: 2", SAME)) as router:
            reply = await embed(router, texts)
            body = reply.json()
            assert [len(arrival.json["input"]) for arrival in cloud.seen] == [2] * (count // 2) + [1] * (count % 2)
            assert [vector["embedding"] for vector in body["data"]] == [vector_of(text) for text in texts]
            assert [vector["index"] for vector in body["data"]] == list(range(count))
            assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] == count
            (row,) = [row for row in router.rows(reply) if row.backend == "cloud"]
            assert (row.amount_nano, row.status) == (count * 1000, "ok")


async def test_a_split_request_that_fails_midway_is_charged_for_what_was_answered() -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        limited = Answer.json(wire.error("slow down"), 429)
        cloud.choose = lambda arrival: embedded(arrival) if len(cloud.seen) == 1 else limited
        async with routing(backends(engine, cloud, f"{SAME}, max_inputs: 2", SAME)) as router:
            reply = await embed(router, ["a", "b", "c"])
            assert reply.status_code == 503
            first, *again = [row for row in router.rows(reply) if row.backend == "cloud"]
            assert (first.amount_nano, first.status) == (2000, "error")
            assert not any(row.amount_nano for row in again)  # the limited cloud may be asked once more


async def test_fewer_vectors_than_inputs_are_never_joined() -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        cloud.answer = Answer.json(wire.embeddings("bge", [vector_of("a")], 2))
        async with routing(backends(engine, cloud, f"{SAME}, max_inputs: 2", SAME)) as router:
            reply = await embed(router, ["a", "b", "c"])
        assert reply.status_code == 502
        assert "1 vectors came for 2 inputs" in error_of(reply)["message"]


@pytest.mark.parametrize("upstream", [embedded, always_floats, refuses_base64])
@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_the_sdk_gets_its_encoding_from_every_upstream(upstream: Any, encoding: Any) -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        engine.choose = upstream
        async with (
            routing(backends(engine, cloud, SAME, SAME)) as router,
            openai.AsyncOpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0) as client,
        ):
            asked = {} if encoding is None else {"encoding_format": encoding}
            answer = await client.embeddings.create(model="embed", input=["ab", "c"], **asked)
            vectors = [vector.embedding for vector in answer.data]
            raw = (await embed(router, ["ab", "c"], **asked)).json()["data"][0]["embedding"]
    assert isinstance(raw, str) == (encoding == "base64")
    if encoding == "base64":
        vectors = [list(struct.unpack("<3f", base64.b64decode(v))) for v in vectors]  # type: ignore[arg-type]
    assert vectors == [vector_of("ab"), vector_of("c")]


async def test_floats_come_where_only_base64_is_spoken() -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        packed = base64.b64encode(struct.pack("<3f", *vector_of("ab"))).decode()
        engine.answer = Answer.json(wire.embeddings("bge", [packed], 1))  # type: ignore[list-item]
        async with routing(backends(engine, cloud, SAME, SAME)) as router:
            reply = await embed(router, "ab", encoding_format="float")
    assert reply.json()["data"][0]["embedding"] == vector_of("ab")


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_dimensions_mean_the_same_everywhere_or_are_refused(encoding: str) -> None:
    async with FaultUpstream() as engine, FaultUpstream() as cloud:
        engine.choose = lambda arrival: embedded(
            Arrival(arrival.path, {}, wire.dump({**arrival.json, "dimensions": None}))
        )
        cloud.choose = embedded
        text = backends(engine, cloud, SAME, SAME)
        async with routing(text) as router:
            reply = await embed(router, "ab", dimensions=2, encoding_format=encoding)
            assert reply.headers["x-spillway-backend"] == "cloud"
            assert reply.headers["x-spillway-reason"] == "capability"
        async with routing(text.replace("chain: [engine, cloud]", "chain: [engine]")) as router:
            reply = await embed(router, "ab", dimensions=2, encoding_format=encoding)
    assert reply.status_code == 400
    assert "3 numbers, not the 2" in error_of(reply)["message"]
