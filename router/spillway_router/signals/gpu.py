"""The health of a GPU and what it means for routing. These are values only; no driver is called here.

NVML's "utilisation" is the share of time in which at least one kernel ran. It says that the GPU is busy, not that it is
full, so it is reported and decides nothing. Two things decide: an XID error, an uncorrectable memory error or the loss
of the GPU takes it out, and a clock that the driver holds down slows the engine by about the ratio of the clocks.
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_RATE_FACTOR = 0.1

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that are the fault of a program and leave the GPU usable. NVIDIA's Kubernetes device plugin ignores the same
list when it marks a GPU unhealthy."""

# NVML's clock event reasons (nvml.h, nvmlClocksEventReasons). Idle and application clocks do not count as throttling.
_THROTTLE_TOKENS = (
    ("thermal", 0x20 | 0x40),  # software and hardware thermal slowdown
    ("power", 0x04 | 0x80),  # software power cap, external power brake
    ("hw", 0x08),  # hardware slowdown: temperature, power or a fault, clocks halved or worse
)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment. A value that the GPU does not report is None (MIG, old driver, laptop)."""

    index: int
    name: str
    utilisation: float | None = None
    """Share of the last sampling period with a kernel running, 0 to 1."""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    sm_clock_mhz: float | None = None
    sm_clock_max_mhz: float | None = None
    throttle: tuple[str, ...] = ()
    """Why the driver holds the clock down: any of "thermal", "power" and "hw"."""
    xid_errors: tuple[int, ...] | None = None
    """XIDs of the last minutes, oldest first; None if the driver does not report events."""
    ecc_errors: int = 0
    """Uncorrectable memory errors that were counted in the last minutes."""
    lost: bool = False
    """Whether the GPU was there some minutes ago and is gone: it fell off the bus, or a reset is pending."""


@dataclass(frozen=True, slots=True)
class GpuVerdict:
    """Whether the engine on this GPU may get requests, and how fast it is compared with an unthrottled one."""

    healthy: bool
    rate_factor: float
    """Factor on the prefill rate, 0.1 to 1."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuTelemetry:
    """A reading of all GPUs. `up` is False if there is no driver, no library, no GPU or no answer."""

    up: bool
    readings: tuple[GpuReading, ...] = ()
    reason: str = ""


def throttle_tokens(reason_bits: int) -> tuple[str, ...]:
    """Return the tokens for NVML's bit mask of clock event reasons."""
    return tuple(token for token, bits in _THROTTLE_TOKENS if reason_bits & bits)


def gpu_verdict(reading: GpuReading) -> GpuVerdict:
    """Return the verdict on one GPU.

    The clock counts only while the driver gives a reason, because an idle GPU clocks down too and is at full speed as
    soon as work arrives. XIDs of applications are reported but do not make the GPU unhealthy.
    """
    xids = tuple(dict.fromkeys(reading.xid_errors or ()))
    healthy = all(xid in APPLICATION_XIDS for xid in xids) and not reading.ecc_errors and not reading.lost
    factor = 1.0
    clock, highest = reading.sm_clock_mhz, reading.sm_clock_max_mhz
    if reading.throttle and clock is not None and highest is not None and highest > 0:
        factor = min(1.0, max(MIN_RATE_FACTOR, clock / highest))
    reasons = [*reading.throttle, *(f"xid {xid}" for xid in xids)]
    if reading.ecc_errors:
        reasons.append("uncorrectable memory error")
    if reading.lost:
        reasons.append(f"GPU {reading.index} is gone")
    return GpuVerdict(healthy, factor, tuple(reasons))
