"""A GPU counts as busy only if it was so all the time, and what is not known is not busy."""

from __future__ import annotations

import pytest

from spillway_router.signals.gpu import GpuReading, GpuTelemetry
from spillway_router.signals.utilisation import FRESH_S, UtilisationHistory


def busy(*shares: float | None) -> GpuTelemetry:
    return GpuTelemetry(True, tuple(GpuReading(i, "A100", utilisation=share) for i, share in enumerate(shares)))


def history(*readings: tuple[float, GpuTelemetry]) -> UtilisationHistory:
    seen = UtilisationHistory()
    for at_s, gpus in readings:
        seen.add(gpus, at_s)
    return seen


def test_the_least_busy_gpu_at_its_least_busy_moment_decides() -> None:
    seen = history(*((float(at), busy(1.0, 0.97)) for at in range(0, 14, 2)))
    assert (seen.lowest(10.0), seen.lowest(12.0), seen.lowest(0.0)) == (0.97, 0.97, 0.97)
    seen.add(busy(1.0, 0.2), 14.0)
    seen.add(busy(1.0, 1.0), 16.0)
    assert (seen.lowest(1.0), seen.lowest(2.0)) == (1.0, 0.2)


@pytest.mark.parametrize(
    "after",
    [
        [],
        [(20.0, GpuTelemetry(False, (), "NVML did not answer"))],
        [(20.0, busy(1.0, None))],
        [(20.0, GpuTelemetry(True))],
        [(18.5 + FRESH_S, busy(1.0))],
    ],
)
def test_a_time_that_is_not_known_in_full_is_not_busy(after: list[tuple[float, GpuTelemetry]]) -> None:
    before = [(float(at), busy(1.0)) for at in range(10, 19, 2)]
    assert history(*before, *after).lowest(10.0) is None
