"""What a GGUF file's header alone refuses, in the router's own environment, before anything is installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spillway_server.convert import inspection
from spillway_server.convert.formats import ARCHITECTURES, MIXTURES, SPLIT_RULES, cannot_be_rebuilt, family_of
from spillway_server.convert.pipeline import ConversionOptions
from spillway_server.convert.request import ConversionRequest, run
from spillway_server.convert.source import ModelSource
from spillway_server.obstacle import Obstacle
from spillway_server.planning.gguf_file import GgufHeader
from spillway_server.planning.models import DEMO_WEIGHTS

F16 = DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf"


def written(folder: Path, *changes: tuple[str, str]) -> ModelSource:
    """Write the demo's file with words of its header replaced; each word and its replacement are of one length."""
    content = F16.read_bytes()
    for old, new in changes:
        length = len(old).to_bytes(8, "little")
        assert content.count(length + old.encode()) >= 1
        content = content.replace(length + old.encode(), length + new.encode(), 1)
    file = folder / "model.gguf"
    file.write_bytes(content)
    return ModelSource(file, "model", True)


def test_the_demo_file_is_fine(tmp_path: Path) -> None:
    assert inspection.obstacle(written(tmp_path), None, None) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("llama", "mamba"), "architecture 'mamba'"),
        (("qwen2", "qwen9"), "a rule named 'qwen9'"),
        (("tokenizer.chat_template", "tokenizer.chat_templatX"), "no chat template"),
    ],
)
def test_what_can_not_be_rebuilt_is_refused_before_an_environment_is_installed(
    tmp_path: Path, change: tuple[str, str], reason: str
) -> None:
    model = written(tmp_path, change)
    request = ConversionRequest(
        model.path, ConversionOptions(out=tmp_path / "out"), name_out=False, convert_python=tmp_path / "no-python"
    )
    refused = run(request, lambda _event: None, lambda _line: None)
    assert isinstance(refused, Obstacle)
    assert reason in refused.reason
    assert refused.fix


def test_a_tokenizer_brings_its_rule_and_its_template(tmp_path: Path) -> None:
    model = written(tmp_path, ("qwen2", "qwen9"), ("tokenizer.chat_template", "tokenizer.chat_templatX"))
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"eos_token": "x"}))
    refused = inspection.obstacle(model, tokenizer, None)
    assert isinstance(refused, Obstacle)
    assert "no chat template" in refused.reason
    (tokenizer / "chat_template.jinja").write_text("{{ messages }}")
    assert inspection.obstacle(model, tokenizer, None) is None
    (tokenizer / "chat_template.jinja").unlink()
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert inspection.obstacle(model, tokenizer, None) is None
    assert inspection.obstacle(model, None, "none") is not None
    assert inspection.obstacle(model, tokenizer, "none") is None


def test_the_rules_and_architectures_that_are_offered() -> None:
    offered = {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "granite", "smollm3", "olmo2"}
    assert set(ARCHITECTURES) == offered | set(MIXTURES)
    # The rules of llama.cpp under which files of these architectures are published.
    assert {"llama-bpe", "qwen2", "smollm", "refact", "dbrx", "smaug-bpe", "tekken", "gpt-4o", "gpt-2"} <= set(
        SPLIT_RULES
    )


@pytest.mark.parametrize(
    ("architecture", "experts", "family"),
    [
        ("qwen3moe", 128, "qwen3moe"),
        ("qwen2moe", 60, "qwen2moe"),
        ("olmoe", 64, "olmoe"),
        ("llama", 8, "mixtral"),
        ("llama", 0, "llama"),
        ("llama", 1, "llama"),
    ],
)
def test_mixtures_of_experts_that_can_be_rebuilt(architecture: str, experts: int, family: str) -> None:
    header = GgufHeader({"general.architecture": architecture, f"{architecture}.expert_count": experts}, ())
    assert cannot_be_rebuilt("m.gguf", header) is None
    assert family_of(header) == family


@pytest.mark.parametrize("architecture", ["granite", "deepseek2", "mixtral", ""])
def test_other_mixtures_are_refused(architecture: str) -> None:
    header = GgufHeader({"general.architecture": architecture, f"{architecture}.expert_count": 8}, ())
    refused = cannot_be_rebuilt("m.gguf", header)
    assert refused is not None
    assert "qwen3moe" in refused.reason
