"""How busy the GPUs were over a while, for those who want it as a rule of overflow.

NVML's utilisation says that a kernel ran, not that the GPU is full: a single long answer may show 100%. So it decides
nothing by itself (gpu.py), and where a user makes it a rule, only a GPU that was busy all the time counts. What is not
known is not busy: a gap between readings begins the time anew.
"""

from __future__ import annotations

from collections import deque

from spillway_router.signals.gpu import GpuTelemetry

FRESH_S = 10.0
"""Longest time between two readings that belong together, and for which the last one counts: several of NVML's
intervals."""
_MOST_READINGS = 4096
"""Two hours at one reading every two seconds."""


class UtilisationHistory:
    """The share of time in which the least busy GPU of this machine was busy, reading by reading.

    The least busy one decides: as long as one GPU has time, the machine has. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._readings: deque[tuple[float, float]] = deque(maxlen=_MOST_READINGS)

    def add(self, gpus: GpuTelemetry, monotonic_s: float) -> None:
        """Take a reading. One that lacks a GPU's utilisation ends the history."""
        readings = [reading.utilisation for reading in gpus.readings]
        shares = [share for share in readings if share is not None]
        if self._readings and monotonic_s - self._readings[-1][0] > FRESH_S:
            self._readings.clear()
        if not gpus.up or not shares or len(shares) < len(readings):
            self._readings.clear()
        else:
            self._readings.append((monotonic_s, min(shares)))

    def lowest(self, within_s: float) -> float | None:
        """Return the lowest share of the last seconds, 0 to 1; None if they are not known in full."""
        if not self._readings:
            return None
        since_s = self._readings[-1][0] - within_s
        if self._readings[0][0] > since_s:
            return None
        return min(share for at_s, share in self._readings if at_s >= since_s)
