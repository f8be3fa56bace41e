"""What is said of the settings of the semantic cache, and the rules that follow from them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from spillway_router.config import load as config
from spillway_router.config.assemble import Assembly, assemble
from spillway_router.config.load import ConfigRejected
from spillway_router.core.caching.certificate import SemanticCertificate

pytestmark = pytest.mark.usefixtures("empty_folder")

BACKENDS = """
backends:
  - {name: own, provider: vllm, local: true, model: m, base_url: 'http://127.0.0.1:1/v1'}
  - {name: far, provider: groq, model: m, api_key: k, price: {input_per_million: 1, output_per_million: 1}}
"""


def assembled(folder: Path, **semantic: Any) -> Assembly | ConfigRejected:
    cache = {"enabled": True, "semantic": {"embedder": "own", **semantic}}
    file = folder / "spillway.yaml"
    file.write_text(f"{BACKENDS}cache: {json.dumps(cache)}\n")
    return assemble(config.read(str(file), {}).settings, {}, date(2026, 11, 1))


def certificate(folder: Path, *, threshold: float | None = 0.9, model: str = "m") -> str:
    values = SemanticCertificate(
        model=model,
        threshold=threshold,
        alpha=0.01,
        delta=0.1,
        pairs=9,
        agreeing=8,
        hits=7,
        errors=0,
        scripts=frozenset({"LATIN"}),
    )
    (folder / "made.json").write_text(values.to_json("2026-01-01"))
    assert SemanticCertificate.from_json((folder / "made.json").read_bytes()) == values
    return "made.json"


def test_a_certificate_of_the_embedders_model_gives_the_threshold(tmp_path: Path) -> None:
    assembly = assembled(tmp_path, certificate=certificate(tmp_path), timeout_ms=20)
    assert isinstance(assembly, Assembly)
    assert assembly.semantic is not None
    assert (assembly.semantic.threshold, assembly.semantic.model, assembly.semantic.within_s) == (0.9, "m", 0.02)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (None, "finds nothing without a certificate"),
        ({"model": "other"}, "was made for the model 'other', and own serves 'm'"),
        ({"threshold": None}, "certifies no threshold"),
    ],
)
def test_without_a_valid_certificate_nothing_is_found_and_the_check_says_so(
    changes: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    file = {} if changes is None else {"certificate": certificate(tmp_path, **changes)}
    assembly = assembled(tmp_path, **file)
    assert isinstance(assembly, Assembly)
    assert assembly.semantic is None
    (warning,) = [warning for warning in assembly.warnings if warning.where.startswith("cache.semantic")]
    assert said in warning.problem
    assert "spillway calibrate-cache" in warning.problem


@pytest.mark.parametrize("embedder", ["far", "nobody"])
def test_only_a_local_backend_embeds(embedder: str, tmp_path: Path) -> None:
    rejected = assembled(tmp_path, embedder=embedder, certificate=certificate(tmp_path))
    assert isinstance(rejected, ConfigRejected)
    assert f"{embedder!r} is no local backend that serves embeddings" in str(rejected.problems[0])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "spillway-semantic-cache/1", "marks": 0}', '{"format": "spillway-calibration/1"}'],
)
def test_a_file_that_is_no_certificate_is_an_error_that_says_how_to_make_one(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    for file in ("x.json", "missing.json"):
        rejected = assembled(tmp_path, certificate=file)
        assert isinstance(rejected, ConfigRejected)
        assert "spillway calibrate-cache" in str(rejected.problems[0])


@pytest.mark.parametrize("changes", [{"threshold": 1.5}, {"threshold": -1}, {"scripts": "LATIN"}, {"hits": "many"}])
def test_values_out_of_range_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    data = json.loads((tmp_path / certificate(tmp_path)).read_text())
    (tmp_path / "made.json").write_text(json.dumps({**data, **changes}))
    assert isinstance(assembled(tmp_path, certificate="made.json"), ConfigRejected)
