"""Work coefficients from a GPU's data sheet, for as long as nobody has measured the engine.

The base coefficients are those of `WorkCoefficients` (an 8B model, simulated, optimistic). Other GPUs are scaled from
the base GPU: prefill is bound by dense FP16 tensor FLOPS, decoding and reading the KV cache by memory bandwidth. None
of these numbers was measured on the GPU itself; `WorkCoefficients.from_rates` takes measured ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from spillway_router.core.money.attribution import WorkCoefficients


@dataclass(frozen=True, slots=True)
class GpuSheet:
    """One GPU's data sheet: dense FP16 tensor TFLOPS, and memory bandwidth in GB/s."""

    tflops: int
    bandwidth: int


def coefficients_of(sheet: GpuSheet, base: GpuSheet) -> WorkCoefficients:
    """Scale the base coefficients from the base GPU to this one: picoseconds of GPU time per token."""
    coefficients = WorkCoefficients()
    return WorkCoefficients(
        prefill_ps=coefficients.prefill_ps * base.tflops // sheet.tflops,
        decode_ps=coefficients.decode_ps * base.bandwidth // sheet.bandwidth,
        kv_ps=coefficients.kv_ps * base.bandwidth // sheet.bandwidth,
    )
