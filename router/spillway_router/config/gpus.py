"""The GPU table as the configuration and the cost report use it: the names of `gpu.name`, and work from data sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from spillway_hardware.gpus import BASE, GPUS, NAMES, gpu
from spillway_router.core.money.attribution import WorkCoefficients
from spillway_router.core.money.gpu_sheets import GpuSheet, coefficients_of

if TYPE_CHECKING:
    GpuName = str
else:
    GpuName = Literal[NAMES]
    """The names of the table, so that a wrong one is a configuration problem and editors complete the right ones."""


def data_sheet_coefficients(name: str) -> WorkCoefficients:
    """Return the work per token of a GPU by name or alias, scaled by its data sheet. Raises `UnknownGpuError`."""
    return coefficients_of(_sheet(gpu(name).name), _sheet(BASE))


def _sheet(name: str) -> GpuSheet:
    model = GPUS[name]
    return GpuSheet(model.tflops, model.bandwidth_gb_s)
