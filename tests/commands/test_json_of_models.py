"""`--json` of the commands that need a model, labels, a document or an engine: their keys, and nothing beside JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.commands.json_keys import ANSWER, check, documented, keys_of
from typer.testing import CliRunner, Result

from spillway_router.cli import app
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, pair, settings
from spillway_router.testing.openai_wire import embeddings
from spillway_server import convert_command, present, push_command
from spillway_server.convert.pipeline import Converted
from spillway_server.convert.request import ConversionRequest
from spillway_server.convert.steps import OnStepEvent, StepDone, StepProgress, StepStarted
from spillway_server.engine import events
from spillway_server.obstacle import Obstacle
from spillway_server.planning.verification import Verification
from spillway_server.stores.destination import Brought

pytestmark = pytest.mark.usefixtures("empty_folder")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--json"])


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_calibrations(tmp_path: Path) -> None:
    random = Random(1)
    answers = [{"right": r > 0.3, "scores": {"mean": -r}} for r in (random.random() for _ in range(300))]
    labels = written(tmp_path / "labels.jsonl", answers)
    check("calibrate", run("calibrate", labels, "--output", str(tmp_path / "c.json")))
    hard = [{"text": f"note {n} {'merger' if n % 3 else 'lunch'}", "hard": bool(n % 3)} for n in range(200)]
    requests = written(tmp_path / "requests.jsonl", hard)
    check("calibrate-complexity", run("calibrate-complexity", requests, "--output", str(tmp_path / "x.json")))


async def test_the_certificate_of_the_cache(tmp_path: Path) -> None:
    pairs = written(tmp_path / "pairs.jsonl", [{"a": "one", "b": "two", "same": True}])
    async with FaultUpstream() as embedder:
        embedder.choose = lambda _arrival: Answer.json(embeddings("m", [[1.0, 0.0]], 3))
        config = tmp_path / "spillway.yaml"
        config.write_text(settings(local(embedder, "minilm"), cloud("http://127.0.0.1:1/v1")))
        words = ("calibrate-cache", pairs, "--embedder", "minilm", "--config", str(config))
        check("calibrate-cache", await asyncio.to_thread(run, *words))


async def test_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("AL: 23.40 mm")
    lines = written(tmp_path / "in.jsonl", [{"text": "AL: 23.40 mm"}])
    async with pair(ANSWER, folder=tmp_path) as (_, _, router):
        token = router.admin["authorization"].removeprefix("Bearer ")
        at = ("--url", router.url, "--key", token)
        schema = ("--schema", written(tmp_path / "schema.json", [{"type": "object"}]))
        one = await asyncio.to_thread(run, "extract", str(tmp_path / "a.txt"), *at, *schema)
        check("extract", one, codes=(0, 1))
        several = await asyncio.to_thread(run, "extract", str(tmp_path / "a.txt"), "missing.txt", *at, *schema)
        assert keys_of(several.stdout, lines=True) <= documented()["extract"]
        batch = ("--batch", lines, "--output", str(tmp_path / "out.jsonl"))
        check("extract", await asyncio.to_thread(run, "extract", *batch, *at), codes=(0, 1))


def test_a_conversion_says_on_standard_error_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Verification(
        verified=False, reasons=("the perplexity is too high.",), figures={"samples": 3}, source={}, recipe={}
    )

    def convert(_request: ConversionRequest, on_event: OnStepEvent, report: Any) -> Converted:
        report("installing llm-compressor")
        for event in (StepStarted("unpack", 10), StepProgress("unpack", 0.5, "layer 1"), StepDone("unpack", 1, False)):
            on_event(event)
        return Converted(Path("out"), verdict)

    monkeypatch.setattr(convert_command, "run", convert)
    done = run("convert", "model.gguf")
    check("convert", done, codes=(2,))
    assert "unpack" in done.stderr


def test_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(_source: Path, place: str, say: Any, _endpoint: str) -> Brought:
        say("model.safetensors")
        return Brought(place, 2, 100, "ab" * 32)

    monkeypatch.setattr(push_command, "bring", bring)
    check("push", run("push", "model", "s3://bucket/prefix"))


def test_every_event_of_an_engine_is_one_line() -> None:
    obstacle = Obstacle("the port is taken.", "Choose another.")
    every: tuple[events.EngineEvent, ...] = (
        events.EngineStarting(1, ("vllm", "serve"), "data/engine.log"),
        events.EngineProgress("loading", 1.0),
        events.EngineReady("http://127.0.0.1:8001/v1", "demo", 30.0),
        events.EngineUnready("it does not answer"),
        events.EngineDraining(3),
        events.EngineExited(1, obstacle, ("last line",)),
        events.EngineRestarting(2.0, 1),
        events.EngineStopped(),
        events.EngineFailed(obstacle, ("last line",)),
    )
    shown = [present.event_json(event) for event in every]
    assert {key for row in shown for key in row} <= documented()["serve"]
    assert {row["event"] for row in shown} <= documented()["serve"]
    refused = run("serve", "--model", "./missing", "--engine-python", "/nowhere/python")
    check("serve", refused, codes=(1,))
    assert refused.stdout.count("\n") == 1
    assert "make install" in refused.stderr
