"""What a GPU can do, as far as its data sheet tells: work coefficients before anybody has measured the engine.

The base is the A100 80 GB with an 8B model of `WorkCoefficients` (simulated, optimistic). Other GPUs are scaled from
it: prefill is bound by dense FP16 tensor FLOPS, decoding and reading the KV cache by memory bandwidth (NVIDIA's data
sheets). None of these numbers was measured on the GPU itself; `WorkCoefficients.from_rates` takes measured ones.
"""

from __future__ import annotations

from spillway_router.core.frozen import dataclass
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.tariff import TariffError


@dataclass(frozen=True, slots=True)
class GpuSheet:
    """One GPU's data sheet: dense FP16 tensor TFLOPS, and memory bandwidth in GB/s."""

    name: str
    title: str
    tflops: int
    bandwidth: int


SHEETS: dict[str, GpuSheet] = {
    sheet.name: sheet
    for sheet in (
        GpuSheet("t4", "NVIDIA T4 16 GB", 65, 320),
        GpuSheet("a10g", "NVIDIA A10G 24 GB", 70, 600),
        GpuSheet("l4", "NVIDIA L4 24 GB", 121, 300),
        GpuSheet("a100-40", "NVIDIA A100 40 GB", 312, 1555),
        GpuSheet("a100-80", "NVIDIA A100 80 GB", 312, 2039),
        GpuSheet("h100", "NVIDIA H100 80 GB", 989, 3350),
    )
}
_BASE = SHEETS["a100-80"]
_SAME = {"a100": "a100-80"}


def sheet_of(name: str) -> GpuSheet:
    """The data sheet of a GPU by name (a100 is a100-80). Raises TariffError naming the known ones."""
    found = SHEETS.get(_SAME.get(name.lower(), name.lower()))
    if found is None:
        raise TariffError(f"GPU {name!r} is not known; use one of {', '.join(SHEETS)}")
    return found


def coefficients_of(sheet: GpuSheet) -> WorkCoefficients:
    """The base coefficients scaled to this GPU: picoseconds of it per token."""
    base = WorkCoefficients()
    return WorkCoefficients(
        prefill_ps=base.prefill_ps * _BASE.tflops // sheet.tflops,
        decode_ps=base.decode_ps * _BASE.bandwidth // sheet.bandwidth,
        kv_ps=base.kv_ps * _BASE.bandwidth // sheet.bandwidth,
    )
