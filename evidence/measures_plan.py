"""The KV capacity of plans against real vLLM: made-up models of many shapes start on the CPU, with weights of no value.

Each model is a directory with a config.json and a header of safetensors that `spillway plan` reads; vLLM gets the
planned command line, plus `--load-format dummy`. It prints its own figure before it serves, and is ended then.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from loadtests.bench.processes import free_port

from evidence.results import Measurement, not_measured
from spillway_server import environment
from spillway_server.engine.launcher import InstalledEngine, find_engine
from spillway_server.obstacle import Obstacle
from spillway_server.planning import hardware, models, profiles
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan

KV_ERROR = "models.plan_kv_error"
START_LIMIT_S = 240.0
_FIGURE = re.compile(r"KV cache size: ([\d,]+) tokens")
_PLAIN = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "hidden_act": "silu",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": True,
}
_MLA = {
    "num_hidden_layers": 4,
    "num_key_value_heads": 8,
    "moe_intermediate_size": 128,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "norm_topk_prob": False,
    "scoring_func": "softmax",
    "moe_layer_freq": 1,
}
_GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 64, "head_dim": 64}


def _made(architecture: str, kind: str, layers: int, **changes: Any) -> dict[str, Any]:
    shape = {"architectures": [architecture], "model_type": kind, "num_hidden_layers": layers}
    return {**_PLAIN, **shape, **changes}


SHAPES: Mapping[str, Mapping[str, Any]] = {
    "as many KV heads as heads": _made("LlamaForCausalLM", "llama", 6, num_key_value_heads=8),
    "grouped heads": _made("Qwen2ForCausalLM", "qwen2", 7),
    "a head size of its own": _made("Qwen3ForCausalLM", "qwen3", 5, head_dim=128),
    "one KV head": _made("LlamaForCausalLM", "llama", 9, num_key_value_heads=1),
    "a window in every layer": _made("MistralForCausalLM", "mistral", 6, sliding_window=1024),
    "a window in every second layer": _made("Gemma2ForCausalLM", "gemma2", 8, sliding_window=512, **_GEMMA),
    "a window in five of six layers": _made(
        "Gemma3ForCausalLM", "gemma3_text", 13, sliding_window=512, sliding_window_pattern=6, **_GEMMA
    ),
    "experts": _made("MixtralForCausalLM", "mixtral", 4, num_local_experts=4, num_experts_per_tok=2),
    "long context by linear scaling": _made(
        "LlamaForCausalLM", "llama", 4, rope_scaling={"rope_type": "linear", "factor": 2.0}
    ),
    "fused projections": _made("Phi3ForCausalLM", "phi3", 5, original_max_position_embeddings=4096),
    "multipliers": _made("GraniteForCausalLM", "granite", 3),
    "a latent (MLA) and experts": {**_made("DeepseekV2ForCausalLM", "deepseek_v2", 4), **_MLA},
}


def plan_kv_error(say: Callable[[str], None]) -> dict[str, Measurement]:
    """Compare the planned KV tokens with vLLM's own figure for every shape; the value is the largest relative error."""
    engine = find_engine(None, (environment.project_root(), Path.cwd()))
    if isinstance(engine, Obstacle) or not engine.is_cpu_build:
        return {KV_ERROR: not_measured("the CPU build of vLLM is not installed")}
    rows: dict[str, dict[str, float | int | str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, config) in enumerate(SHAPES.items()):
            rows[name] = _compare(Path(scratch) / f"m{number}", config, engine)
            say(f"  {name}: {rows[name]}")
    errors = [float(row["error"]) for row in rows.values() if "error" in row]
    if not errors:
        return {KV_ERROR: not_measured("vLLM printed no figure")}
    details = {"engine": f"vLLM {engine.version} on the CPU", "shapes": rows}
    return {KV_ERROR: Measurement(round(max(errors), 5), len(errors), details)}


def _compare(folder: Path, config: Mapping[str, Any], engine: InstalledEngine) -> dict[str, float | int | str]:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    # vLLM makes the weights up, and the plan takes any file's size.
    (folder / "model.safetensors").write_bytes(b"\0" * 4096)
    spec = models.from_directory(folder, "made")
    profile = profiles.cpu_profile(hardware.detect().memory_bytes)
    plan = spec if isinstance(spec, Obstacle) else make_plan(profile, spec, PlanOptions(port=free_port()))
    if isinstance(plan, Obstacle):
        return {"refused": plan.reason}
    printed = _printed(plan, engine, folder)
    if isinstance(printed, str):
        return {"planned": plan.kv_tokens or 0, "failed": printed}
    planned = plan.kv_tokens or 0
    return {"planned": planned, "vllm": printed, "error": round(abs(planned / printed - 1), 5)}


def _printed(plan: EnginePlan, engine: InstalledEngine, folder: Path) -> int | str:
    """Start vLLM, and return the figure that it prints, or its last words."""
    argv = [*engine.command(str(folder)), *plan.arguments, "--load-format", "dummy", "--skip-tokenizer-init"]
    log = folder / "engine.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            argv,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment.engine_environment(plan.env),
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while time.monotonic() < deadline:
                match = _FIGURE.search(log.read_text(errors="replace"))
                if match:
                    return int(match[1].replace(",", ""))
                if process.poll() is not None:
                    break
                time.sleep(0.2)
            errors = [line for line in log.read_text(errors="replace").splitlines() if "Error" in line]
            return (errors or ["no figure in time"])[-1][-300:]
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End vLLM's whole session, its worker processes included."""
    import os

    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
        time.sleep(0.5)
