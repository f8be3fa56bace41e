"""Shapes and counts of published models, from their configurations alone."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from spillway_server.planning import architectures, memory, parameters, recorded
from spillway_server.planning.memory import Budget
from spillway_server.planning.models import recorded_model
from spillway_server.planning.shapes import GIB, ModelShape, UnknownStateError, shape_of

# The numbers of parameters that the hub counts in the published files.
PUBLISHED = {
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.1-405B-Instruct": 405_853_388_800,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
    "microsoft/phi-4": 14_659_507_200,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "google/gemma-2-2b-it": 2_614_341_888,
    "google/gemma-3-1b-it": 999_885_952,
}
REGISTRY = Path(__file__).parents[3] / ".venv-vllm/lib/python3.11/site-packages/vllm/model_executor/models/registry.py"


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    record = recorded.find(name)
    assert record is not None
    assert parameters.count(record.config).total == PUBLISHED[name]


def test_every_record_has_a_source_and_a_shape() -> None:
    assert len(recorded.names()) >= 30
    for name in recorded.names():
        record = recorded.find(name)
        assert record is not None
        assert record.source
        spec = recorded_model(name)
        assert spec.shape is not None
        assert architectures.is_known(spec.architecture), name


def test_quantised_weights_take_their_bits_and_their_groups() -> None:
    plain, awq = recorded_model("Qwen/Qwen2.5-7B-Instruct").shape, recorded_model("Qwen/Qwen2.5-7B-Instruct-AWQ").shape
    fp8, mxfp4 = (
        recorded_model("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic").shape,
        recorded_model("openai/gpt-oss-20b").shape,
    )
    assert None not in (plain, awq, fp8, mxfp4)
    # The sizes of the files on the hub, in GB: 15.23, 5.57, 8.71 and 13.76.
    sizes = [shape.weight_bytes / 1e9 for shape in (plain, awq, fp8, mxfp4) if shape]
    assert sizes == pytest.approx([15.23, 5.57, 8.71, 13.76], rel=0.01)
    assert [shape.group for shape in (plain, awq) if shape] == [0, 128]


def test_only_chosen_experts_work_on_a_token() -> None:
    shape = recorded_model("Qwen/Qwen3-30B-A3B").shape
    assert shape is not None
    assert shape.active_parameters / 1e9 == pytest.approx(3.3, abs=0.1)


@pytest.mark.parametrize(
    ("scaling", "longest"),
    [
        (None, 4096),
        ({"rope_type": "linear", "factor": 4.0}, 16384),
        ({"type": "dynamic", "factor": 2.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "llama3", "factor": 8.0}, 4096),
    ],
)
def test_rope_scaling_lengthens_as_in_vllm(scaling: dict[str, Any] | None, longest: int) -> None:
    config = {**PLAIN, "rope_scaling": scaling}
    assert shape_of(config, "bfloat16", 1000).max_len == longest


PLAIN = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 12,
    "max_position_embeddings": 4096,
}


@pytest.mark.parametrize(
    ("change", "sliding"),
    [
        ({"sliding_window": 512}, (12, 512)),
        ({"sliding_window": 512, "use_sliding_window": False}, (0, 0)),
        ({"sliding_window": 512, "model_type": "gemma2"}, (6, 512)),
        ({"sliding_window": 512, "model_type": "gemma3_text", "sliding_window_pattern": 6}, (10, 512)),
        ({"sliding_window": 512, "layer_types": ["sliding_attention", "full_attention"] * 6}, (6, 512)),
        ({"sliding_window": None}, (0, 0)),
    ],
)
def test_layers_with_a_window(change: dict[str, Any], sliding: tuple[int, int]) -> None:
    shape = shape_of({**PLAIN, **change}, "bfloat16", 1000)
    assert (shape.sliding, shape.window) == sliding


def test_a_recurrent_state_is_not_guessed() -> None:
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    with pytest.raises(UnknownStateError):
        shape_of({**PLAIN, "layer_types": kinds * 3}, "bfloat16", 1000)


def test_windows_leave_room_for_more_requests() -> None:
    full = ModelShape(parameters=1, weight_bytes=1, layers=12, kv_heads=2, head_dim=64, max_len=8192)
    windowed = ModelShape(
        parameters=1, weight_bytes=1, layers=12, kv_heads=2, head_dim=64, max_len=8192, sliding=10, window=512
    )
    budget = Budget(device_bytes=0, share=1, batched_tokens=256, kv_element_bytes=2, mean_tokens=1, max_model_len=8192)
    # 12 layers x 2 x 2 heads x 64 x 2 bytes = 6,144 bytes a token.
    assert memory.kv_tokens(full, GIB, budget) == GIB // 6144 // 16 * 16
    assert memory.kv_tokens(windowed, GIB, budget) > 3 * memory.kv_tokens(full, GIB, budget)
    assert memory.kv_tokens(full, -5, budget) == 0


@pytest.mark.skipif(not REGISTRY.exists(), reason="the CPU build of vLLM is not installed")
def test_the_recorded_architectures_are_those_of_the_installed_vllm() -> None:
    tables = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS", "_EMBEDDING_MODELS")
    names = set()
    for node in ast.parse(REGISTRY.read_text()).body:
        name = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        if name in tables and isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names |= {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
    assert len(names) > 200
    assert [name for name in sorted(names) if not architectures.is_known(name)] == []
    assert architectures.only_pools("BertModel")
    assert not architectures.only_pools("Qwen2ForCausalLM")
