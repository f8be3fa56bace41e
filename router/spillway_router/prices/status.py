"""The status of a price: stale prices, withdrawn models, and prices that have ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from spillway_router.prices.rows import ModelRecord

RETIRES_SOON_DAYS = 60
"""From so many days before its withdrawal on, a model is reported as one to replace."""


@dataclass(frozen=True, slots=True)
class PriceStatus:
    """`off` says why the model can't be used, empty if it can; `warnings` says what its user should know."""

    off: str = ""
    warnings: tuple[str, ...] = ()


def price_status(record: ModelRecord, today: date, stale_after_days: int) -> PriceStatus:
    """Return the status of a model on `today`."""
    if record.retired_on is not None and record.retired_on <= today:
        return PriceStatus(f"its provider withdrew the model on {record.retired_on}; {_instead(record)}")
    if record.tariff(today) is None:
        ended = record.prices[-1][1].valid_until
        return PriceStatus(
            f"its price ended on {ended} and no later one is known; import the new price, or set it as `price:`"
        )
    warnings: list[str] = []
    if record.retired_on is not None:
        days = (record.retired_on - today).days
        if days <= RETIRES_SOON_DAYS:
            in_days = "tomorrow" if days == 1 else f"in {days} days"
            warnings.append(f"the model is withdrawn on {record.retired_on}, {in_days}; {_instead(record)} by then")
    elif record.deprecated_on is not None and record.deprecated_on <= today:
        warnings.append(f"its provider has deprecated the model since {record.deprecated_on}; {_instead(record)}")
    age = age_days(record, today)
    if age is not None and age > stale_after_days:
        warnings.append(
            f"its price was checked {age} days ago ({record.checked_on}), more than prices.stale_after_days = "
            f"{stale_after_days}; compare it with the provider's page, then `spillway prices update FILE`"
        )
    return PriceStatus("", tuple(warnings))


def _instead(record: ModelRecord) -> str:
    return f"change to {record.successor}" if record.successor else "choose another model"


def age_days(record: ModelRecord, today: date) -> int | None:
    """Return the days from the last check of the price to `today`, None if no check before that day is known."""
    if record.checked_on is None or record.checked_on > today:
        return None
    return (today - record.checked_on).days
