"""What fits where: one line per GPU and model, from the same plans that `serve` runs. Arithmetic; where an engine was
measured on that GPU, its speed is the measured one and says so."""

from __future__ import annotations

from collections.abc import Sequence

from spillway_hardware.gpus import NAMES
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.measurements import shipped
from spillway_server.planning.models import GIB, TABLE
from spillway_server.planning.plan import EnginePlan, PlanOptions, make_plan
from spillway_server.planning.profiles import PROFILES
from spillway_server.planning.speed import speed_of
from spillway_server.refusal import Refusal

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
    """The table. Names as in `profiles.PROFILES` and `models.TABLE`. KeyError for others."""
    lines = [_HEAD, "|" + "---|" * _HEAD.count(" | ") + "---|"]
    lines.extend(_line(gpu, model) for gpu in gpus for model in models)
    return "\n".join(lines) + "\n"


def _line(gpu: str, model: str) -> str:
    options = PlanOptions()
    made = make_plan(PROFILES[gpu], TABLE[model], options)
    if isinstance(made, Refusal):
        return f"| {gpu} | {model} | does not fit: {made.reason} {made.fix} | | | | | | | |"
    return _fitting(gpu, made, options.mean_tokens)


def _fitting(gpu: str, made: EnginePlan, mean_tokens: int) -> str:
    shape, kv = made.model.shape, made.kv_tokens or 0
    weights = "" if shape is None else f"{shape.weight_bytes / GIB:.1f}"
    flags = " ".join(made.arguments[made.arguments.index("--max-model-len") :])
    return (
        f"| {gpu} | {made.served_name} | {weights} | {kv:,} | {min(made.max_num_seqs, kv // mean_tokens)} of "
        f"{mean_tokens} tokens | {made.max_model_len:,} | {_speed(gpu, made)} | `{flags}` |"
    )


def _speed(gpu: str, made: EnginePlan) -> str:
    found = speed_of(made, Hardware((PROFILES[gpu].gpu,), 1, 0), shipped())
    if found is None:
        return "| | not known"
    rates = found.rates
    return (
        f"{rates.prefill_tokens_per_s:,.0f} | {1e6 / rates.decode_us:,.0f} at {rates.best_sequences} at once | "
        f"{found.origin}"
    )
