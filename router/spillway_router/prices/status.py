"""May a price and its model still be relied on? Stale prices, withdrawn models, prices that ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from spillway_router.prices.rows import ModelRecord


@dataclass(frozen=True, slots=True)
class PriceStatus:
    """`off`: why the model can't be used at all, empty where it can. `warnings`: what its user should know."""

    off: str = ""
    warnings: tuple[str, ...] = ()


def price_status(found: ModelRecord, today: date, stale_after_days: int) -> PriceStatus:
    """The standing of a model on `today`."""
    if found.retired_on is not None and found.retired_on <= today:
        return PriceStatus(f"its provider withdrew the model on {found.retired_on}; choose another model")
    if found.tariff(today) is None:
        ended = found.prices[-1][1].valid_until
        return PriceStatus(
            f"its price ended on {ended} and no later one is known; look it up and import it, or write it as `price:`"
        )
    warnings: list[str] = []
    if found.retired_on is not None:
        days = (found.retired_on - today).days
        warnings.append(f"the model is withdrawn on {found.retired_on}, in {days} days; choose another one by then")
    elif found.deprecated_on is not None and found.deprecated_on <= today:
        warnings.append(f"its provider advises against the model since {found.deprecated_on}; choose another one")
    age = age_days(found, today)
    if age is not None and age > stale_after_days:
        warnings.append(
            f"its price was checked {age} days ago ({found.checked_on}), more than prices.stale_after_days = "
            f"{stale_after_days}; compare it with the provider's page, then `spillway prices import FILE`"
        )
    return PriceStatus("", tuple(warnings))


def age_days(found: ModelRecord, today: date) -> int | None:
    """Days since somebody last looked at the price, None where no day is known."""
    return None if found.checked_on is None else (today - found.checked_on).days
