"""Plans for every GPU and every model of the table, and every reason to refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spillway_server.obstacle import Obstacle
from spillway_server.planning.arguments import parse, value_of
from spillway_server.planning.models import ModelSpec, recorded_model
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES, Profile, cpu_profile
from spillway_server.planning.shapes import ModelShape

GIB = 1024**3
DEMO = ModelSpec(
    location="/models/demo",
    served_name="demo",
    dtype="bfloat16",
    quantisation=None,
    shape=ModelShape(parameters=1_900_000, weight_bytes=3_800_000, layers=3, kv_heads=2, head_dim=64, max_len=1024),
)
QWEN_AWQ = recorded_model("Qwen/Qwen2.5-7B-Instruct-AWQ")
QWEN_16 = recorded_model("Qwen/Qwen2.5-7B-Instruct")
MODELS = (
    "Qwen/Qwen2.5-7B-Instruct-AWQ",
    "Qwen/Qwen2.5-7B-Instruct",
    "RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic",
    "Qwen/Qwen2.5-1.5B-Instruct",
    "Qwen/Qwen2.5-1.5B-Instruct-AWQ",
    "meta-llama/Llama-3.1-8B-Instruct",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8",
)
# KV capacity in thousands of tokens (rounded down) by GPU, columns as MODELS; None: refused. Worked out apart from the
# code, from (memory x share - weights - overhead) / KV bytes per token with the sizes on the models' cards, in
# whole blocks of 16.
CAPACITY: dict[str, tuple[int | None, ...]] = {
    "t4": (133, None, None, 352, 420, None, 57, None),
    "a10g": (259, 90, 204, 605, 672, 33, 112, 86),
    "l4": (518, 181, 409, 1211, 1346, 66, 224, 173),
    "l40s": (1254, 917, 1145, 2682, 2817, 388, 546, 495),
    "a100-40": (535, 367, 481, 1158, 1225, 154, 233, 207),
    "a100-80": (1224, 1056, 1170, 2536, 2603, 455, 534, 509),
    "h100": (2437, 2100, 2328, 5048, 5183, 906, 1063, 1012),
}
CASES = [(gpu, name) for gpu in PROFILES for name in MODELS]


def planned(profile: Profile, model: ModelSpec, *vllm_args: str, **options: int | str) -> EnginePlan:
    plan = make_plan(profile, model, PlanOptions(vllm_args=vllm_args, **options))
    assert isinstance(plan, EnginePlan), plan
    return plan


def refused(profile: Profile, model: ModelSpec, *vllm_args: str) -> Obstacle:
    obstacle = make_plan(profile, model, PlanOptions(vllm_args=vllm_args))
    assert isinstance(obstacle, Obstacle)
    assert obstacle.fix, "an obstacle must say what to change"
    return obstacle


def flag(plan: EnginePlan, name: str) -> str | None:
    flags = parse(plan.arguments)
    assert not isinstance(flags, str)
    return value_of(flags, name)


@pytest.mark.parametrize(("gpu", "name"), CASES)
def test_every_gpu_with_every_model(gpu: str, name: str) -> None:
    profile, model = PROFILES[gpu], recorded_model(name)
    plan = make_plan(profile, model, PlanOptions())
    thousands = CAPACITY[gpu][MODELS.index(name)]
    if thousands is None:
        assert isinstance(plan, Obstacle)
        return
    assert isinstance(plan, EnginePlan), plan
    assert plan.kv_tokens is not None
    assert plan.kv_tokens // 1000 == thousands
    # Invariants: what is promised fits, and the 16-bit rules of the T4 hold.
    assert plan.max_model_len <= plan.kv_tokens
    assert flag(plan, "--max-model-len") == str(plan.max_model_len)
    assert flag(plan, "--max-num-queued-reqs") == str(profile.queue_limit)
    assert flag(plan, "--scheduling-policy") == "priority"
    assert flag(plan, "--host") == "127.0.0.1"
    assert (flag(plan, "--dtype") == "half") is (gpu == "t4")
    assert (flag(plan, "--kv-cache-dtype") == "fp8") is (gpu in ("l4", "l40s", "h100"))
    assert flag(plan, "--quantization") is None, "vLLM detects the format by itself"


def test_rows_add_up() -> None:
    rows = {row.label: row for row in planned(PROFILES["t4"], QWEN_AWQ).rows}
    left = rows["memory for vLLM"].value - rows["weights"].value - rows["run-time overhead"].value
    assert rows["KV cache"].value == pytest.approx(left)
    assert rows["KV per token"].value == 56.0
    assert rows["KV per token"].unit == "KiB"
    assert all(row.unit for row in rows.values())


def test_t4_flags() -> None:
    assert planned(PROFILES["t4"], QWEN_AWQ).arguments == (
        *("--host", "127.0.0.1", "--port", "8001"),
        *("--served-model-name", "Qwen/Qwen2.5-7B-Instruct-AWQ"),
        *("--max-model-len", "4096", "--max-num-seqs", "32", "--max-num-batched-tokens", "2048"),
        *("--max-num-queued-reqs", "48", "--scheduling-policy", "priority"),
        *("--enable-prompt-tokens-details", "--disable-uvicorn-access-log"),
        *("--dtype", "half", "--gpu-memory-utilization", "0.90"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    )


def test_a_vllm_without_a_queue_limit_is_not_asked_for_one() -> None:
    usual = planned(PROFILES["t4"], QWEN_AWQ).arguments
    plan = planned(PROFILES["t4"], QWEN_AWQ, queue_limit=False)
    at = usual.index("--max-num-queued-reqs")
    assert plan.arguments == usual[:at] + usual[at + 2 :]
    assert any("--max-num-queued-reqs" in warning for warning in plan.warnings)


def test_cpu_with_the_demo_model() -> None:
    plan = planned(cpu_profile(16 * GIB), DEMO, port=8123)
    assert flag(plan, "--enforce-eager") == ""
    assert flag(plan, "--dtype") == "float32"
    assert flag(plan, "--max-model-len") == "1024"
    assert flag(plan, "--port") == "8123"
    assert flag(plan, "--gpu-memory-utilization") is None
    assert dict(plan.env)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert dict(plan.env)["HF_HUB_OFFLINE"] == "1"
    # 1 GiB of KV at 2 x 3 x 2 x 64 x 4 bytes a token, in whole blocks of 128: what vLLM itself reports.
    assert plan.kv_tokens == 349_440


def test_unix_socket_replaces_host_and_port() -> None:
    plan = planned(PROFILES["l4"], QWEN_AWQ, uds="/run/engine.sock")
    assert flag(plan, "--uds") == "/run/engine.sock"
    assert flag(plan, "--host") is None
    assert flag(plan, "--port") is None


def test_users_arguments_win_and_count() -> None:
    plan = planned(
        PROFILES["t4"], QWEN_AWQ, "--max-model-len=2k", "--max_num_seqs", "8", "--gpu-memory-utilization", "0.5"
    )
    assert plan.max_model_len == 2000
    assert plan.arguments[-5:] == ("--max-model-len=2k", "--max_num_seqs", "8", "--gpu-memory-utilization", "0.5")
    assert "--max-num-seqs" not in plan.arguments
    assert plan.rows[0].value == pytest.approx(7.5)


def test_switch_off_replaces_switch_on() -> None:
    plan = planned(cpu_profile(16 * GIB), DEMO, "--no-enforce-eager")
    assert "--enforce-eager" not in plan.arguments
    assert plan.arguments[-1] == "--no-enforce-eager"


def test_served_name_can_be_changed() -> None:
    plan = planned(PROFILES["l4"], QWEN_AWQ, "--served-model-name", "house", "other")
    assert plan.served_name == "house"


def test_two_devices_hold_what_one_cannot() -> None:
    llama = recorded_model("meta-llama/Llama-3.1-8B-Instruct")
    plan = planned(PROFILES["t4"], llama, devices=2)
    assert flag(plan, "--tensor-parallel-size") == "2"
    assert plan.kv_tokens is not None
    assert plan.kv_tokens > 4096


def test_context_is_shortened_with_a_warning() -> None:
    # 40 GiB of weights leave little KV on an A100-80 under 0.58 of its memory.
    big = ModelSpec(
        location="org/big",
        served_name="big",
        dtype="bfloat16",
        quantisation="w4a16",
        shape=ModelShape(
            parameters=80_000_000_000, weight_bytes=42 * GIB, layers=80, kv_heads=8, head_dim=128, max_len=131_072
        ),
    )
    plan = planned(PROFILES["a100-80"], big, "--gpu-memory-utilization", "0.58")
    assert plan.kv_tokens is not None
    assert plan.max_model_len == plan.kv_tokens // 256 * 256 < 16_384
    assert any("shortened" in warning for warning in plan.warnings)


def test_an_unknown_shape_is_refused_and_forced_without_arithmetic() -> None:
    unknown = ModelSpec(
        location="org/finetune", served_name="org/finetune", dtype="bfloat16", quantisation=None, shape=None
    )
    assert "unknown" in refused(PROFILES["a100-40"], unknown).reason
    plan = planned(PROFILES["a100-40"], unknown, force=True)
    assert plan.rows == ()
    assert plan.kv_tokens is None
    assert any("forced" in warning for warning in plan.warnings)


def test_force_turns_the_arithmetic_into_a_warning() -> None:
    plan = planned(PROFILES["t4"], QWEN_16, force=True)
    assert any("GiB are missing" in warning for warning in plan.warnings)


def test_an_architecture_that_vllm_does_not_know_is_refused() -> None:
    strange = replace(QWEN_AWQ, architecture="BrandNewForCausalLM")
    assert "BrandNewForCausalLM" in refused(PROFILES["l4"], strange).reason
    encoder = replace(QWEN_AWQ, architecture="BertModel")
    assert "--embed" in refused(PROFILES["l4"], encoder).fix


def test_no_request_is_longer_than_the_model_reads() -> None:
    short = recorded_model("microsoft/Phi-3-mini-4k-instruct")
    assert flag(planned(PROFILES["a100-80"], short), "--max-model-len") == "4096"
    assert "4096" in refused(PROFILES["a100-80"], short, "--max-model-len=16384").reason
    longer = planned(PROFILES["a100-80"], short, "--max-model-len=16384", '--hf-overrides={"rope_theta": 1}')
    assert longer.max_model_len == 16384


def test_other_address_is_warned_about() -> None:
    assert any("0.0.0.0" in warning for warning in planned(PROFILES["l4"], QWEN_AWQ, host="0.0.0.0").warnings)


@pytest.mark.parametrize(
    ("profile", "model", "vllm_args", "reason"),
    [
        (PROFILES["t4"], QWEN_16, (), "GiB are missing"),
        (PROFILES["t4"], QWEN_AWQ, ("--dtype", "bfloat16"), "no bfloat16"),
        (PROFILES["t4"], QWEN_AWQ, ("--kv-cache-dtype=fp8",), "no fp8 KV"),
        (PROFILES["t4"], QWEN_AWQ, ("--max-model-len", "200k"), "reads at most 32768"),
        (
            PROFILES["t4"],
            recorded_model("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16"),
            ("--max-model-len=100k",),
            "the KV cache holds",
        ),
        (PROFILES["t4"], QWEN_AWQ, ("--max-model-len", "many"), "not a number"),
        (PROFILES["t4"], QWEN_AWQ, ("stray",), "belongs to no flag"),
        (PROFILES["l4"], QWEN_AWQ, ("--api-key", "secret"), "--api-key"),
        (PROFILES["l4"], QWEN_AWQ, ("--port", "1"), "--port"),
        (
            PROFILES["l4"],
            ModelSpec(location="/m/x.gguf", served_name="x", dtype="float16", quantisation="gguf", shape=None),
            (),
            "GGUF",
        ),
        (cpu_profile(16 * GIB), recorded_model("RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic"), (), "CPU can't run fp8"),
        (cpu_profile(4 * GIB), QWEN_16, (), "does not fit"),
        (
            Profile(
                key="other",
                title="NVIDIA V100",
                memory_bytes=16 * GIB,
                compute_capability=(7, 0),
                max_model_len=4096,
                max_num_seqs=32,
                max_num_batched_tokens=2048,
                utilisation=0.9,
                queue_limit=48,
            ),
            QWEN_AWQ,
            (),
            "7.5",
        ),
    ],
)
def test_refusals(profile: Profile, model: ModelSpec, vllm_args: tuple[str, ...], reason: str) -> None:
    assert reason in refused(profile, model, *vllm_args).reason


def test_secret_is_not_repeated_in_the_refusal() -> None:
    obstacle = refused(PROFILES["l4"], QWEN_AWQ, "--api-key=hunter2")
    assert "hunter2" not in obstacle.reason + obstacle.fix
    assert "VLLM_API_KEY" in obstacle.fix
