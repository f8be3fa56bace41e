"""The speed of a planned engine: as it was measured on such hardware, else estimated from data sheets.

Estimates scale one base: the A100 with an 8B model in 16 bit that this project's overflow rules were simulated with
(step of 9.8 ms for one sequence and 11.4 ms for 64; 2048 prompt tokens in 150 ms; 128 KiB of KV cache per token read at
1.5 TB/s). Prefill and the cost of each further sequence scale with dense FP16 FLOPS and parameters; the step scales
with memory bandwidth and the weights' bytes; KV reads scale with bandwidth and the cache's bytes per token. No part of
an estimate was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_hardware.gpus import BASE, GPUS
from spillway_server.planning import arguments
from spillway_server.planning.hardware import Hardware
from spillway_server.planning.measurements import MeasuredRates, MeasuredRun, Subject, closest
from spillway_server.planning.memory import Row, element_bytes
from spillway_server.planning.plan import EnginePlan

MEASURED, ESTIMATED = "measured", "estimated"
_BASE_PARAMETERS = 8_030_261_248
_BASE_STEP_S, _BASE_SEQUENCES = 0.0098, 64
_BASE_SEQUENCE_S = (0.0114 - 0.0098) / 64
_BASE_PREFILL = 2048 / 0.150
_BASE_KV_BYTES, _BASE_KV_S = 128 * 1024, 128 * 1024 / 1.5e12


@dataclass(frozen=True, slots=True)
class Speed:
    """An engine's rates and how they are known: `origin` is measured or estimated, `basis` says on what.

    `devices` GPUs work on each step, so that GPU time is the engine's time multiplied by `devices`.
    """

    origin: str
    basis: str
    rates: MeasuredRates
    devices: int = 1

    def work_us(self) -> dict[str, float]:
        """Return b_p, b_d and b_kv in microseconds of one GPU per token, under the names of `gpu.work`."""
        rates = self.rates
        each = {"prefill_us": rates.prefill_us, "decode_us": rates.decode_us, "kv_us": rates.kv_us}
        return {name: round(self.devices * value, 6) for name, value in each.items()}

    def rows(self) -> tuple[Row, ...]:
        """Return the rows to show."""
        rates, work = self.rates, self.work_us()
        at_best = f"with {rates.best_sequences} sequences at once"
        return (
            Row("prefill", rates.prefill_tokens_per_s, "tokens/s", "with full batches"),
            Row("one decode step", 1000 * rates.step_time_s, "ms", "one sequence, short context"),
            Row("each further sequence", 1e6 * rates.step_time_s_per_sequence, "µs", "per step"),
            Row("output", 1e6 / rates.decode_us if rates.decode_us else 0.0, "tokens/s", f"{at_best}, short context"),
            Row("b_p", work["prefill_us"], "µs", "GPU time per prompt token"),
            Row("b_d", work["decode_us"], "µs", "GPU time per output token"),
            Row("b_kv", work["kv_us"], "µs", "GPU time per token of context that a step reads"),
        )


def subject_of(plan: EnginePlan, machine: Hardware, devices: int) -> Subject:
    """Return the subject under which a plan would be measured. A hub model is named as vLLM gets it."""
    model = plan.model.served_name if plan.model.is_local else plan.model.location
    key = plan.profile.key
    return Subject(
        hardware=machine.title, device=key, devices=devices, model=model, quantisation=plan.model.quantisation
    )


def speed_of(plan: EnginePlan, machine: Hardware, runs: tuple[MeasuredRun, ...], devices: int = 1) -> Speed | None:
    """Return the measured speed of such hardware, else an estimate.

    None where neither is possible (an unmeasured CPU, an unknown model).
    """
    match = closest(runs, subject_of(plan, machine, devices), plan.arguments)
    if match is None:
        return estimate(plan)
    run = match.run
    flags = f"other {', '.join(match.differing_flags)}" if match.differing_flags else "the same flags"
    basis = f"measured on {run.subject.hardware}, {run.date[:10]}, vLLM {run.engine_version}, {flags}"
    return Speed(MEASURED, basis, run.rates, devices)


def estimate(plan: EnginePlan) -> Speed | None:
    """Estimate the speed by scaling the base; the devices that split a model count as one with the sum of their rates,
    and several engines multiply the prefill rate."""
    shape, gpu = plan.model.shape, GPUS.get(plan.profile.key)
    devices = plan.layout.tensor * plan.layout.pipeline
    if shape is None or gpu is None:
        return None
    base = GPUS[BASE]
    used = shape.active_parameters or shape.parameters
    compute = base.tflops / (gpu.tflops * devices) * used / _BASE_PARAMETERS
    bandwidth = base.bandwidth_gb_s / (gpu.bandwidth_gb_s * devices)
    flags = arguments.parse(plan.arguments)
    cache = (
        "auto" if isinstance(flags, arguments.StrayWord) else arguments.value_of(flags, "--kv-cache-dtype") or "auto"
    )
    per_token = shape.kv_bytes_per_token(element_bytes(cache, "float16"))
    step = _BASE_STEP_S * bandwidth * shape.weight_bytes * used / shape.parameters / (2 * _BASE_PARAMETERS)
    each = _BASE_SEQUENCE_S * compute
    sequences = min(_BASE_SEQUENCES, plan.max_num_seqs)
    kv = _BASE_KV_S * bandwidth * per_token / _BASE_KV_BYTES
    rates = MeasuredRates(
        prefill_tokens_per_s=round(plan.layout.data * _BASE_PREFILL / compute, 1),
        step_time_s=round(step, 7),
        step_time_s_per_sequence=round(each, 8),
        kv_s_per_token=kv,
        best_sequences=sequences,
        prefill_us=round(1e6 * compute / _BASE_PREFILL, 3),
        decode_us=round(1e6 * (step / sequences + each), 3),
        kv_us=round(1e6 * kv, 5),
    )
    return Speed(ESTIMATED, "estimated from data sheets and a simulated A100; none of it was measured", rates, devices)


def settings(speed: Speed, backend: str, max_sequences: int) -> dict[str, object]:
    """Return the part of spillway.yaml that follows: the cost report's b_p, b_d and b_kv (`gpu.work`), and the rates
    from which the overflow rule starts to learn (the backend's)."""
    work = {name: f"{value:f}".rstrip("0").rstrip(".") for name, value in speed.work_us().items()}
    rates = {"prefill_tokens_per_s": speed.rates.prefill_tokens_per_s, "max_sequences": max_sequences}
    return {"gpu": {"work": work}, "backends": [{"name": backend, **rates}]}
