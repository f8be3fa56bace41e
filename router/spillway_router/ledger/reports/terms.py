"""What reports take from the configuration. A module of its own: reports are imported when the first one is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo

from spillway_router.core.money.alternatives import Offer
from spillway_router.core.money.attribution import GpuRental, WorkCoefficients
from spillway_router.core.money.currency import Currency


@dataclass(frozen=True, slots=True)
class ReportTerms:
    """The configured costs: the GPU's price if nothing was rented, the work per token, the priced models, the month's
    cap on all cloud spend in nano-dollars, the time zone of the days, the currency that people see, and whether the
    price of the GPU is known at all."""

    gpu: GpuRental
    coefficients: WorkCoefficients
    alternatives: Mapping[str, Offer]
    month_budget_nano: int | None = None
    zone: tzinfo = UTC
    currency: Currency | None = None
    price_known: bool = True

    @property
    def is_free(self) -> bool:
        """Whether the configuration says that the GPUs cost nothing."""
        return self.price_known and not self.gpu.price_per_hour
