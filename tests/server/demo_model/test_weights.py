"""The files of the demo model: complete, small, consistent with each other. No torch needed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

import spillway_server.demo_model as demo_model

WEIGHTS = Path(demo_model.__file__).parent / "weights"
FILES = {
    "config.json",
    "generation_config.json",
    "gguf/spillway-demo-F16.gguf",
    "gguf/spillway-demo-Q8_0.gguf",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def _json(name: str) -> dict[str, object]:
    value = json.loads((WEIGHTS / name).read_text())
    assert isinstance(value, dict)
    return value


def _safetensors_header() -> dict[str, dict[str, object]]:
    raw = (WEIGHTS / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert isinstance(header, dict)
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def test_all_files_are_there_and_small() -> None:
    shipped = {str(path.relative_to(WEIGHTS)): path for path in WEIGHTS.rglob("*") if path.is_file()}
    assert set(shipped) == FILES
    assert sum(path.stat().st_size for path in shipped.values()) <= 12_000_000


def test_it_is_a_llama_of_one_to_five_million_parameters_that_takes_4_bit_groups_of_128() -> None:
    config = _json("config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    parameters = 0
    for name, entry in _safetensors_header().items():
        shape = entry["shape"]
        assert isinstance(shape, list)
        rows, columns = shape[0], shape[-1] if len(shape) == 2 else 1
        parameters += rows * columns
        if len(shape) == 2 and "layers" in name:
            assert rows % 128 == 0, name
            assert columns % 128 == 0, name
    assert 1_000_000 <= parameters <= 5_000_000


def test_the_vocabulary_matches_the_embedding_and_the_stop_token() -> None:
    config, tokenizer = _json("config.json"), _json("tokenizer.json")
    model, added = tokenizer["model"], tokenizer["added_tokens"]
    assert isinstance(model, dict)
    assert isinstance(added, list)
    ids = dict(model["vocab"]) | {token["content"]: token["id"] for token in added}
    assert sorted(ids.values()) == list(range(int(str(config["vocab_size"]))))
    assert _safetensors_header()["model.embed_tokens.weight"]["shape"][0] == config["vocab_size"]  # type: ignore[index]
    assert ids["<|im_end|>"] == config["eos_token_id"] == _json("generation_config.json")["eos_token_id"]
    assert all(digit in ids for digit in "0123456789")
    assert not [token for token in ids if len(token) > 1 and token.isdigit()], "digits must stay single tokens"


def test_the_chat_template_is_in_the_tokenizer_config_and_in_both_gguf_files() -> None:
    template = _json("tokenizer_config.json")["chat_template"]
    assert isinstance(template, str)
    assert "add_generation_prompt" in template
    for name in ("gguf/spillway-demo-F16.gguf", "gguf/spillway-demo-Q8_0.gguf"):
        head = (WEIGHTS / name).read_bytes()
        assert head[:4] == b"GGUF"
        assert template.encode() in head
        assert b"qwen2" in head, "llama.cpp has to know the pre-tokenizer"


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_no_file_names_the_machine_it_was_made_on(name: str) -> None:
    assert "/home/" not in (WEIGHTS / name).read_text()
    assert "_name_or_path" not in (WEIGHTS / name).read_text()
