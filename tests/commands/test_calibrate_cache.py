"""`spillway calibrate-cache` with an embedder on a real socket, whose vectors the test chooses."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from spillway_router.cli import app
from spillway_router.core.caching.certificate import SemanticCertificate
from spillway_router.testing import Answer, FaultUpstream
from spillway_router.testing.harness import cloud, local, settings
from spillway_router.testing.openai_wire import embeddings
from spillway_router.testing.upstream import Arrival

pytestmark = pytest.mark.usefixtures("empty_folder")


def labelled(same: int, different: int) -> Iterator[dict[str, Any]]:
    """Pairs whose second text ends with the angle of its vector to the first one's, a tenth of a degree apart."""
    for n in range(same):
        yield {"a": "ask at angle o", "b": f"ask at angle {'i' * (n % 50)}", "same": True}
    for n in range(different):
        yield {"a": "ask at angle o", "b": f"ask at angle {'i' * (60 + n)}", "same": False}
    yield {"a": "ask at angle o", "b": "ask at angle 5", "same": True}


def embed(arrival: Arrival) -> Answer:
    angle = math.radians(arrival.json["input"].count("i") / 2)
    return Answer.json(embeddings("m", [[math.cos(angle), math.sin(angle)]], 3))


async def run(folder: Path, *arguments: str, embedder: FaultUpstream | None = None) -> Result:
    own = embedder or "http://127.0.0.1:1/v1"
    config = folder / "spillway.yaml"
    config.write_text(settings(local(own, "minilm"), cloud("http://127.0.0.1:1/v1")))
    command = ["calibrate-cache", *arguments, "--config", str(config), "--out", str(folder / "made.json")]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


async def test_the_threshold_lies_between_the_same_and_the_others(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, labelled(100, 40))))
    async with FaultUpstream() as embedder:
        embedder.choose = embed
        options = ("--embedder", "minilm", "--alpha", "0.05", "--json")
        result = await run(tmp_path, str(pairs), *options, embedder=embedder)
        assert result.exit_code == 0, result.output
        assert len(embedder.seen) == 1 + 50 + 40, "each text once, and none whose pair can't hit"
    certificate = SemanticCertificate.from_json((tmp_path / "made.json").read_bytes())
    assert certificate.threshold is not None
    # "ask at angle o" has no i; the loosest pair of the same question lies 24.5 degrees off, the next other one 30
    assert math.cos(math.radians(30)) < certificate.threshold < math.cos(math.radians(23))
    assert (certificate.model, certificate.pairs, certificate.agreeing, certificate.errors) == ("m", 141, 140, 0)
    assert certificate.scripts == {"LATIN"}
    assert json.loads(result.stdout)["threshold"] == certificate.threshold


async def test_too_few_pairs_certify_nothing_and_it_says_how_many_are_needed(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(map(json.dumps, labelled(20, 5))))
    async with FaultUpstream() as embedder:
        embedder.choose = embed
        result = await run(tmp_path, str(pairs), "--embedder", "minilm", embedder=embedder)
    assert result.exit_code == 0, result.output
    assert "no fewer than 390 hits without an error" in " ".join(result.output.split())
    assert SemanticCertificate.from_json((tmp_path / "made.json").read_bytes()).threshold is None


@pytest.mark.parametrize(
    ("line", "options", "said"),
    [
        ('{"a": "x", "b": "y"}', ("--embedder", "minilm"), "line 1: write"),
        ("no JSON", ("--embedder", "minilm"), "line 1: it is not JSON"),
        ('{"a": "x", "b": "y", "same": true}', (), "name the backend that embeds"),
        ('{"a": "x", "b": "y", "same": true}', ("--embedder", "cloud"), "'cloud' is no local backend"),
        ('{"a": "x", "b": "y", "same": true}', ("--embedder", "minilm"), "minilm gave no vector"),
    ],
)
async def test_what_is_wrong_is_said(line: str, options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(line)
    result = await run(tmp_path, str(pairs), *options)
    assert result.exit_code == 1
    assert said in result.output
    assert not (tmp_path / "made.json").exists()
