"""What fits where: one line per GPU and model, from the same plans that `serve` runs.

The capacities are arithmetic. The speed is the measured one where such an engine was measured, and the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from spillway_hardware.gpus import NAMES
from spillway_server.obstacle import Obstacle
from spillway_server.planning import recorded
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.measurements import shipped
from spillway_server.planning.models import recorded_model
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES
from spillway_server.planning.shapes import GIB
from spillway_server.planning.speed import speed_of

COUNTS = (1, 2, 4, 8)
"""The numbers of GPUs that machines are rented with."""
MODELS = (
    "Qwen/Qwen2.5-7B-Instruct-AWQ",
    "Qwen/Qwen2.5-7B-Instruct",
    "RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w4a16",
)
_HEAD = (
    "| GPU | model | weights, GiB | KV capacity, tokens | requests that fit | longest request, tokens "
    "| prompts, tokens/s | output, tokens/s | speed is | flags |"
)


def markdown(gpus: Sequence[str] = NAMES, models: Sequence[str] = MODELS) -> str:
    """Return the table in Markdown.

    GPUs are named as in `profiles.PROFILES`, models as in `models.TABLE`. Raises `KeyError` for others.
    """
    lines = [_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|"]
    lines.extend(_line(gpu, model) for gpu in gpus for model in models)
    return "\n".join(lines) + "\n"


def matrix(gpus: Sequence[str] = NAMES, models: Sequence[str] | None = None) -> str:
    """Return, in Markdown, which recorded model runs on how many GPUs of which kind, with the KV tokens that remain."""
    lines = [f"| model | weights, GiB | {' | '.join(gpus)} |", "|" + "---|" * (2 + len(gpus))]
    for name in recorded.names() if models is None else models:
        shape = recorded_model(name).shape
        size = "" if shape is None else f"{shape.weight_bytes / GIB:,.1f}"
        lines.append(f"| {name} | {size} | {' | '.join(_cell(gpu, name) for gpu in gpus)} |")
    return "\n".join(lines) + "\n"


def _cell(gpu: str, name: str) -> str:
    """Return the least number of GPUs that hold the model, and the tokens that their KV cache holds."""
    for count in COUNTS:
        plan = make_plan(PROFILES[gpu], recorded_model(name), PlanOptions(devices=count))
        if isinstance(plan, EnginePlan):
            many = f"{count} GPUs: " if count > 1 else ""
            return f"{many}{plan.kv_tokens or 0:,}"
    return "no"


def page() -> str:
    """Return the generated part of docs/plans.md: the matrix of all recorded models, and whole plans of a few."""
    return f"{matrix()}\n## Whole plans\n\n{markdown()}"


def _line(gpu: str, model: str) -> str:
    options = PlanOptions()
    plan = make_plan(PROFILES[gpu], recorded_model(model), options)
    if isinstance(plan, Obstacle):
        return f"| {gpu} | {model} | does not fit: {plan.reason} {plan.fix} | | | | | | | |"
    return _fitting(gpu, plan, options.mean_tokens)


def _fitting(gpu: str, plan: EnginePlan, mean_tokens: int) -> str:
    shape, kv = plan.model.shape, plan.kv_tokens or 0
    weights = "" if shape is None else f"{shape.weight_bytes / GIB:.1f}"
    flags = " ".join(plan.arguments[plan.arguments.index("--max-model-len") :])
    return (
        f"| {gpu} | {plan.served_name} | {weights} | {kv:,} | {min(plan.max_num_seqs, kv // mean_tokens)} of "
        f"{mean_tokens} tokens | {plan.max_model_len:,} | {_speed(gpu, plan)} | `{flags}` |"
    )


def _speed(gpu: str, plan: EnginePlan) -> str:
    speed = speed_of(plan, Hardware((PROFILES[gpu].gpu,), 1, 0), shipped())
    if speed is None:
        return "| | unknown"
    rates = speed.rates
    return (
        f"{rates.prefill_tokens_per_s:,.0f} | {1e6 / rates.decode_us:,.0f} at {rates.best_sequences} at once | "
        f"{speed.origin}"
    )
