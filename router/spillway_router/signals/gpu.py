"""What a GPU says of its health, and what that means for routing. Values only: no driver is called here.

NVML's "utilisation" is the share of time in which at least one kernel ran: it says busy, not full, so it is reported
and decides nothing. What decides: an XID error takes the GPU out; a clock that the driver holds down slows the engine
by about the ratio of the clocks.
"""

from __future__ import annotations

from spillway_router.core.frozen import dataclass

MIN_RATE_FACTOR = 0.1

APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 109})
"""XIDs that a program's own fault raises; the GPU goes on. The same list NVIDIA's Kubernetes device plugin leaves out
when it marks a GPU unhealthy."""

# NVML's clock event reasons (nvml.h, nvmlClocksEventReasons). Idle and application clocks are no throttling.
_THROTTLE_TOKENS = (
    ("thermal", 0x20 | 0x40),  # software and hardware thermal slowdown
    ("power", 0x04 | 0x80),  # software power cap, external power brake
    ("hw", 0x08),  # hardware slowdown: temperature, power or a fault, clocks halved or worse
)


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment. None where the GPU does not tell (MIG, old driver, laptop)."""

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
    """Why the driver holds the clock down: of "thermal", "power", "hw"."""
    xid_errors: tuple[int, ...] | None = None
    """XIDs of the last minutes, oldest first; None where the driver does not report events."""


@dataclass(frozen=True, slots=True)
class GpuVerdict:
    """May the engine on this GPU get requests, and how fast is it against an unthrottled one?"""

    healthy: bool
    rate_factor: float
    """Factor on the prefill rate, 0.1 to 1."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GpuTelemetry:
    """A reading of all GPUs. `up` is False where there is no driver, no library, no GPU or no answer."""

    up: bool
    readings: tuple[GpuReading, ...] = ()
    reason: str = ""


def throttle_tokens(reason_bits: int) -> tuple[str, ...]:
    """Tokens for NVML's bit mask of clock event reasons."""
    return tuple(token for token, bits in _THROTTLE_TOKENS if reason_bits & bits)


def gpu_verdict(reading: GpuReading) -> GpuVerdict:
    """The verdict on one GPU.

    The clock counts only while the driver gives a reason: an idle GPU clocks down too and is as fast as ever when
    work comes. XIDs of applications are told and held against nobody.
    """
    xids = tuple(dict.fromkeys(reading.xid_errors or ()))
    fatal = tuple(xid for xid in xids if xid not in APPLICATION_XIDS)
    factor = 1.0
    clock, highest = reading.sm_clock_mhz, reading.sm_clock_max_mhz
    if reading.throttle and clock is not None and highest is not None and highest > 0:
        factor = min(1.0, max(MIN_RATE_FACTOR, clock / highest))
    return GpuVerdict(not fatal, factor, reading.throttle + tuple(f"xid {xid}" for xid in xids))
