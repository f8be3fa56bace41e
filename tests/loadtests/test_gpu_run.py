"""The run on a GPU, as far as it needs none: its model's shape, the requests that it sends, and its figures."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from loadtests.gpu_run import client, dummy

from spillway_router.testing.upstream import Answer, FaultUpstream
from spillway_server.planning import models
from spillway_server.planning.models import ModelSpec, recorded_model

REPLY = client.Reply(at_s=0.0, status=200, backend="local", events=9, first_s=0.5, total_s=1.4, whole=True)


def test_a_checkpoint_without_weights_has_the_shape_of_the_published_model(tmp_path: Path) -> None:
    shape, name = "qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct"
    folder = dummy.write(tmp_path, shape)
    spec = models.from_directory(folder, folder.name)
    assert isinstance(spec, ModelSpec)
    assert spec.shape is not None
    assert replace(spec.shape, largest_file=0) == recorded_model(name).shape
    assert spec.tool_parser == recorded_model(name).tool_parser
    assert (folder / "model.safetensors").stat().st_blocks == 0  # it takes no room
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert set(words.values()) | {509, 510, 511} == set(range(dummy.SHAPES[shape][1]["vocab_size"]))


async def test_a_stream_is_timed_and_its_tokens_are_counted() -> None:
    event = b'data: {"choices": [{"delta": {"content":"a"}}]}\n\n'
    opening = b'data: {"choices": [{"delta": {"role":"assistant","content":""}}]}\n\n'
    stream = Answer.stream(opening + 3 * event + b"data: [DONE]\n\n", end="whole")
    async with FaultUpstream(stream) as upstream:
        port = int(upstream.url.split(":")[2].split("/")[0])
        reply, arrival = await asyncio.gather(
            client.send(client.Ask(port, "m", output=3), since_s=0.0, seed=1), upstream.arrival()
        )
    assert (reply.status, reply.events, reply.whole, reply.private) == (200, 3, True, False)
    assert 0 < reply.first_s <= reply.total_s
    assert arrival.json["max_tokens"] == 3
    assert arrival.json["ignore_eos"] is True


async def test_nobody_there_is_a_reply_without_a_status() -> None:
    assert (await client.send(client.Ask(1, "m"), since_s=0.0, seed=1)).status == 0


def test_the_figures_of_replies() -> None:
    refused = replace(REPLY, status=503, backend="", events=0, first_s=0.03, total_s=0.03, whole=False)
    figures = client.summary([REPLY, replace(REPLY, first_s=3.0, total_s=4.0, private=True), refused], 2.0, output=10)
    assert figures["answers"] == {"200 local": 1, "200 local private": 1, "503": 1}
    assert (figures["whole_in_time"], figures["refused"], figures["refusal_p99_ms"]) == (1, 1, 30.0)
    assert figures["tokens_per_s"] == 5.0
    assert figures["tpot_p50_ms"] == pytest.approx((100.0 + 1000 / 9) / 2, abs=0.01)
