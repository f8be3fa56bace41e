"""What a fleet of some size would have left to the cloud, from the work of the requests.

Work is in seconds of one GPU (core/money/attribution.py). It comes in short slots, because overflow is a matter of
seconds: an hour that is quiet on average overflows in its bursts. In each slot the GPUs do what they have time for, and
the rest leaves at the mean cloud price of the slot's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """The requests that came in a few seconds: their GPU work, and what all of them would have cost at the cloud."""

    work_s: float
    cloud_nano: float


@dataclass(frozen=True, slots=True)
class Demand:
    """One step of the scaler: `overflow_nano[k]` is what leaves, in nano-dollars, while k GPUs serve.

    It falls with k, and by less for each further GPU.
    """

    overflow_nano: tuple[float, ...]

    def overflow(self, gpus: int) -> float:
        """Return what leaves with so many GPUs; beyond the list, with its last one."""
        return self.overflow_nano[min(gpus, len(self.overflow_nano) - 1)]

    def saving(self, layer: int) -> float:
        """Return the nano-dollars of overflow that GPU number `layer` (from 1) absorbs beside those before it."""
        return self.overflow(layer - 1) - self.overflow(layer)


def demand_of(slots: Sequence[Slot], slot_s: float, most: int) -> Demand:
    """Return the demand of one step with 0 to `most` GPUs."""
    overflow = [0.0] * (most + 1)
    for slot in slots:
        if slot.work_s <= 0:
            continue
        nano_per_s = slot.cloud_nano / slot.work_s
        for gpus in range(most + 1):
            left_s = slot.work_s - gpus * slot_s
            if left_s <= 0:
                break
            overflow[gpus] += left_s * nano_per_s
    return Demand(tuple(overflow))
