"""What a model needs, read from directories as checkpoints have them, and from names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spillway_server.obstacle import Obstacle
from spillway_server.planning.hardware import Gpu, Hardware
from spillway_server.planning.models import (
    DEMO_WEIGHTS,
    FP8_CLASS,
    T4_CLASS,
    ModelSpec,
    Sources,
    choose,
    from_directory,
    recorded_model,
    resolve,
)

BARE = Hardware((), 2, 16 * 1024**3)
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "torch_dtype": "bfloat16",
}


def checkpoint(folder: Path, config: object, weights: int = 1000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights:
        (folder / "model.safetensors").write_bytes(b"\0" * weights)
    return folder


def with_gpu(capability: tuple[int, int]) -> Hardware:
    return Hardware((Gpu("card", 16 * 1024**3, capability, "580.1"),), 2, 16 * 1024**3)


def test_a_directory_is_read(tmp_path: Path) -> None:
    model = resolve(str(checkpoint(tmp_path / "mine", CONFIG)), BARE, Sources(tmp_path))
    assert isinstance(model, ModelSpec)
    shape = model.shape
    assert shape is not None
    assert (shape.parameters, shape.weight_bytes, shape.largest_file) == (500, 1000, 1000)
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.max_len) == (28, 28, 4, 128, 32768)
    assert model.architecture == "Qwen2ForCausalLM"
    assert (model.served_name, model.dtype, model.quantisation, model.tool_parser) == (
        "mine",
        "bfloat16",
        None,
        "hermes",
    )
    assert model.is_local


@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ('{"max_seq_length": 256, "do_lower_case": false}', 256),
        ('{"max_seq_length": 99999}', 32768),
        ('{"max_seq_length": null}', 32768),
        ('{"max_seq_length": "256"}', 32768),
        ("[]", 32768),
        ("not JSON", 32768),
    ],
)
def test_a_model_of_sentences_is_no_longer_than_its_own_limit(text: str, longest: int, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "mine", CONFIG)
    (folder / "sentence_bert_config.json").write_text(text)
    model = resolve(str(folder), BARE, Sources(tmp_path))
    assert isinstance(model, ModelSpec)
    assert model.shape is not None
    assert model.shape.max_len == longest


def test_kv_bytes_per_token_of_known_models() -> None:
    qwen, llama = recorded_model(T4_CLASS).shape, recorded_model("meta-llama/Llama-3.1-8B-Instruct").shape
    assert qwen is not None
    assert llama is not None
    assert qwen.kv_bytes_per_token(2) == 56 * 1024
    assert llama.kv_bytes_per_token(2) == 128 * 1024


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "fp8"}, "fp8"),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int"}}}},
            "w4a16",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": 8, "type": "int"}}}},
            "int8",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
    ],
)
def test_quantisation_is_recognised(tmp_path: Path, entry: dict[str, Any], name: str) -> None:
    model = from_directory(checkpoint(tmp_path, {**CONFIG, "quantization_config": entry}), "m")
    assert isinstance(model, ModelSpec)
    assert model.quantisation == name


@pytest.mark.parametrize(
    ("config", "weights", "reason"),
    [
        ("{", 10, "not JSON"),
        ("[]", 10, "not a JSON object"),
        (CONFIG, 0, "no *.safetensors"),
        ({"hidden_size": 8}, 10, "lacks a usable value"),
        ({**CONFIG, "num_attention_heads": "none"}, 10, "lacks a usable value"),
    ],
)
def test_broken_checkpoints_are_refused(tmp_path: Path, config: object, weights: int, reason: str) -> None:
    obstacle = from_directory(checkpoint(tmp_path, config, weights), "m")
    assert isinstance(obstacle, Obstacle)
    assert reason in obstacle.reason
    assert obstacle.fix


def test_a_downloaded_hub_model_is_read_from_the_cache(tmp_path: Path) -> None:
    checkpoint(tmp_path / "models--org--tuned" / "snapshots" / "abc", CONFIG)
    model = resolve("org/tuned", BARE, Sources(tmp_path))
    assert isinstance(model, ModelSpec)
    assert (model.location, model.served_name) == ("org/tuned", "org/tuned")
    assert model.shape is not None


def test_an_unknown_hub_model_is_refused_unless_it_is_forced_or_described(tmp_path: Path) -> None:
    name = "org/other-7b-GPTQ"
    obstacle = resolve(name, BARE, Sources(tmp_path))
    assert isinstance(obstacle, Obstacle)
    assert name in obstacle.reason
    assert "--model-config" in obstacle.fix
    assert "--force" in obstacle.fix
    forced = resolve(name, BARE, Sources(tmp_path, force=True))
    assert isinstance(forced, ModelSpec)
    assert (forced.shape, forced.quantisation) == (None, "gptq")
    copy = checkpoint(tmp_path / "copy", CONFIG, weights=0)
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 7000}}))
    described = resolve(name, BARE, Sources(tmp_path, description=copy))
    assert isinstance(described, ModelSpec)
    assert (described.location, described.served_name) == (name, name)
    assert described.shape is not None
    assert described.shape.weight_bytes == 7000


def test_a_tokenizer_can_shorten_the_context(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, CONFIG)
    for limit, longest in ((1000, 1000), (10**30, 32768)):
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": limit}))
        model = from_directory(folder, "m")
        assert isinstance(model, ModelSpec)
        assert model.shape is not None
        assert model.shape.max_len == longest


@pytest.mark.parametrize("name", ["nothing", "./not-here", "/not/here", "a/b/c"])
def test_names_that_are_nothing(tmp_path: Path, name: str) -> None:
    obstacle = resolve(name, BARE, Sources(tmp_path))
    assert isinstance(obstacle, Obstacle)
    assert repr(name) in obstacle.reason


def test_a_gguf_file_is_read_by_its_header() -> None:
    model = resolve(str(DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf"), BARE, Sources(Path("/nonexistent")))
    assert isinstance(model, ModelSpec)
    assert (model.quantisation, model.served_name) == ("gguf", "spillway-demo-F16")
    demo = resolve("demo", BARE, Sources(Path("/nonexistent")))
    assert isinstance(demo, ModelSpec)
    assert model.shape is not None
    assert demo.shape is not None
    same = ("layers", "heads", "kv_heads", "head_dim", "max_len")
    assert [getattr(model.shape, name) for name in same] == [getattr(demo.shape, name) for name in same]


def test_a_missing_or_damaged_gguf_file_is_refused(tmp_path: Path) -> None:
    whole = (DEMO_WEIGHTS / "gguf" / "spillway-demo-F16.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for content in (b"", b"GGUF", whole[:5000], b"GGML" + whole[4:], whole[:16] + b"\xff" * 8 + whole[24:]):
        cut.write_bytes(content)
        obstacle = resolve(str(cut), BARE, Sources(tmp_path))
        assert isinstance(obstacle, Obstacle)
        assert "can't be read as GGUF" in obstacle.reason
    missing = resolve(str(tmp_path / "none.gguf"), BARE, Sources(tmp_path))
    assert isinstance(missing, Obstacle)
    assert "there is no file" in missing.reason


def test_auto_goes_by_hardware() -> None:
    assert choose(BARE) == "demo"
    assert choose(with_gpu((7, 5))) == T4_CLASS
    assert choose(with_gpu((8, 0))) == T4_CLASS
    assert choose(with_gpu((8, 9))) == FP8_CLASS
    assert all(recorded_model(name).shape is not None for name in (T4_CLASS, FP8_CLASS))


def test_the_demo_model_is_complete(tmp_path: Path) -> None:
    model = resolve("demo", BARE, Sources(tmp_path))
    assert isinstance(model, ModelSpec)
    assert (model.served_name, model.tool_parser) == ("demo", "hermes")
    assert model.shape is not None
    assert model.shape.weight_bytes <= 12_000_000
