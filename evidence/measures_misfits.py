"""Orders of models that can't serve on what is rented, judged by arithmetic of its own and by the product's check.

The judge knows the published number of parameters of each recorded model and the bits per weight that its name or its
maker states. It counts only what can't be argued away: weights alone larger than the GPUs or the disk, attention heads
that vLLM can't split, and bfloat16 on a GPU without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from evidence.results import Measurement
from spillway_hardware.gpus import GPUS
from spillway_server.obstacle import Obstacle
from spillway_server.planning import recorded
from spillway_server.planning.models import Sources
from spillway_server.planning.plan import EnginePlan
from spillway_server.planning.rented import RentedMachine, plan_for

MISFITS = "deploy.misfits_accepted"
COUNTS = (1, 2, 4, 8)
DISKS_GB = (80, 2000)
PARAMETERS: Mapping[str, float] = {
    "Qwen/Qwen2.5-7B-Instruct": 7.62, "Qwen/Qwen2.5-7B-Instruct-AWQ": 7.62,
    "RedHatAI/Qwen2.5-7B-Instruct-FP8-dynamic": 7.62, "Qwen/Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen/Qwen2.5-1.5B-Instruct-AWQ": 1.54, "Qwen/Qwen2.5-32B": 32.5, "Qwen/Qwen2.5-32B-Instruct": 32.5,
    "Qwen/Qwen2.5-32B-Instruct-AWQ": 32.5, "Qwen/Qwen2.5-VL-7B-Instruct": 8.29, "Qwen/Qwen3-0.6B": 0.59,
    "Qwen/Qwen3-1.7B": 1.7, "Qwen/Qwen3-8B": 8.19, "Qwen/Qwen3-32B": 32.7, "Qwen/Qwen3-32B-FP8": 32.7,
    "Qwen/Qwen3-30B-A3B": 30.5, "Qwen/Qwen3-30B-A3B-FP8": 30.5, "Qwen/Qwen3-235B-A22B": 235.0,
    "Qwen/Qwen3-VL-8B-Instruct": 8.7, "meta-llama/Llama-3.2-1B-Instruct": 1.23,
    "meta-llama/Llama-3.2-3B-Instruct": 3.2, "meta-llama/Llama-3.1-8B-Instruct": 8.0,
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16": 8.0, "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8": 8.0,
    "meta-llama/Llama-3.1-70B-Instruct": 70.5, "meta-llama/Llama-3.3-70B-Instruct": 70.5,
    "meta-llama/Llama-3.1-405B-Instruct": 405.0, "mistralai/Mistral-7B-Instruct-v0.3": 7.2,
    "mistralai/Mistral-Nemo-Instruct-2407": 12.2, "mistralai/Mixtral-8x7B-Instruct-v0.1": 46.7,
    "mistralai/Mixtral-8x22B-Instruct-v0.1": 140.6, "microsoft/phi-4": 14.6, "microsoft/Phi-3-mini-4k-instruct": 3.8,
    "google/gemma-2-2b-it": 2.6, "google/gemma-3-1b-it": 0.99, "allenai/Olmo-3.1-32B-Instruct": 32.0,
    "openai/gpt-oss-20b": 20.9, "openai/gpt-oss-120b": 116.8, "deepseek-ai/DeepSeek-R1": 671.0,
    "deepseek-ai/DeepSeek-V3": 671.0, "moonshotai/Kimi-K2-Instruct": 1000.0,
}  # fmt: skip
"""Billions of parameters, from the model cards, rounded down."""
FOUR_BITS = ("AWQ", "w4a16", "gpt-oss")
EIGHT_BITS = ("FP8", "DeepSeek", "Kimi")

Check = Callable[[RentedMachine, str, Sources], EnginePlan | Obstacle]


def misfits_accepted(say: Callable[[str], None], check: Check = plan_for) -> dict[str, Measurement]:
    """Order every recorded model on every GPU, in several numbers and with two disks; count the orders that can't serve
    and are accepted all the same. An accepted order is judged with the arguments that vLLM would get."""
    misfits = 0
    accepted: list[str] = []
    served = 0
    for model, rented in _orders():
        plan = check(rented, model, Sources(cache=Path("/nonexistent")))
        why = _too_large(model, rented) or ("" if isinstance(plan, Obstacle) else _unstartable(model, rented, plan))
        served += not isinstance(plan, Obstacle)
        if why:
            misfits += 1
            if not isinstance(plan, Obstacle):
                accepted.append(f"{model} on {rented.gpus} x {rented.gpu}, {rented.disk_gb} GB: {why}")
    say(f"  {misfits} orders can't serve, {len(accepted)} of them are accepted; {served} orders are accepted in all")
    details = {"accepted_misfits": accepted[:40], "orders_accepted": served, "models": len(PARAMETERS)}
    return {MISFITS: Measurement(len(accepted), misfits, details)}


def _orders() -> Iterator[tuple[str, RentedMachine]]:
    for model in PARAMETERS:
        for gpu in GPUS:
            for count in COUNTS:
                for disk_gb in DISKS_GB:
                    yield model, RentedMachine(gpu=gpu, gpus=count, disk_gb=disk_gb)


def weight_bytes(model: str) -> float:
    """Return the least that the weights take, in bytes."""
    bits = 4 if any(mark in model for mark in FOUR_BITS) else 8 if any(mark in model for mark in EIGHT_BITS) else 16
    return PARAMETERS[model] * 1e9 * bits / 8


def _too_large(model: str, rented: RentedMachine) -> str:
    weights, memory = weight_bytes(model), GPUS[rented.gpu].memory_bytes * rented.gpus
    if weights > memory:
        return f"the weights take {weights / 1e9:.0f} GB, and all GPUs have {memory / 1e9:.0f} GB"
    if rented.disk_gb is not None and weights > rented.disk_gb * 1e9:
        return f"the weights take {weights / 1e9:.0f} GB of a disk of {rented.disk_gb} GB"
    return ""


def _unstartable(model: str, rented: RentedMachine, plan: EnginePlan) -> str:
    """Return why vLLM would not start with the plan's arguments."""
    words = [*plan.arguments, *plan.layout.arguments()]
    given = dict(pairwise(words))
    tensor, stages = int(given.get("--tensor-parallel-size", 1)), int(given.get("--pipeline-parallel-size", 1))
    record = recorded.find(model)
    config = {} if record is None else {**record.config, **record.config.get("text_config", {})}
    heads = int(config.get("num_attention_heads", tensor))
    if heads % tensor:
        return f"{heads} attention heads can't be split over {tensor} GPUs"
    memory = GPUS[rented.gpu].memory_bytes * tensor * stages
    if weight_bytes(model) > memory:
        return f"one engine has {tensor * stages} GPUs, whose memory the weights exceed"
    old = GPUS[rented.gpu].compute_capability < (8, 0)
    if old and config.get("torch_dtype") == "bfloat16" and given.get("--dtype") not in ("half", "float16", "float32"):
        return "the GPU has no bfloat16, and no other type is given"
    return ""
