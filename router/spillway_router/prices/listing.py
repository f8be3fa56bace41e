"""The prices of a day as JSON values: what `spillway prices list --json` prints and `GET /v1/prices` answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from spillway_router.core.money.tariff import Rates, Tariff
from spillway_router.prices.book import book, priced
from spillway_router.prices.rows import CAPABILITIES, ModelRecord
from spillway_router.prices.status import age_days, price_status

RATES = ("input", "output", "cached_input", "cache_write", "cache_write_long", "reasoning")


@dataclass(frozen=True, slots=True)
class PriceListing:
    """The models that have a price on a day, and the licences of the lists that they come from."""

    day: date
    stale_after_days: int
    models: list[dict[str, Any]]
    licences: list[str]

    def values(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "day": self.day.isoformat(),
            "stale_after_days": self.stale_after_days,
            "licences": self.licences,
            "models": self.models,
        }


def listed(own_list: Path, provider: str | None, day: date, stale_after_days: int) -> PriceListing:
    """Return the shipped prices under those of the user's file. Raises PriceError."""
    prices = book(own_list)
    models = priced(prices, day, (provider,) if provider else ())
    return PriceListing(
        day=day,
        stale_after_days=stale_after_days,
        models=[_row(*model, day, stale_after_days) for model in models],
        licences=list(dict.fromkeys(part.licence for part in prices.lists if part.licence)),
    )


def _row(
    provider: str, model: str, record: ModelRecord, tariff: Tariff | None, day: date, stale_after_days: int
) -> dict[str, Any]:
    """Return one model as JSON values: decimal text in USD per million tokens, null where there is no such price."""
    status = price_status(record, day, stale_after_days)
    age = age_days(record, day)
    rates = dict.fromkeys(RATES) if tariff is None else _rates(tariff.rates)
    steps = [] if tariff is None else tariff.steps
    return {
        "provider": provider,
        "model": model,
        "unit": "USD per million tokens",
        **rates,
        "usd_per_request": None if tariff is None else plain(tariff.per_request),
        "usd_per_second": None if tariff is None else plain(tariff.per_second),
        "steps": [{"above_tokens": s.above_tokens, "service": s.service, **_rates(s.rates)} for s in steps],
        "valid_from": None if tariff is None else tariff.valid_from,
        "valid_until": None if tariff is None else tariff.valid_until,
        "source": None if tariff is None else tariff.source,
        "origin": (record.origin(day) or None) if tariff is not None else None,
        "checked_on": iso_day(record.checked_on),
        "age_days": age,
        "stale": age is not None and age > stale_after_days,
        "deprecated_on": iso_day(record.deprecated_on),
        "retired_on": iso_day(record.retired_on),
        "successor": record.successor or None,
        "context_tokens": record.context_tokens,
        "max_output_tokens": record.max_output_tokens,
        "capabilities": {name: record.capabilities.get(name) for name in CAPABILITIES},
        "usable": not status.off,
        "notes": [status.off] if status.off else list(status.warnings),
    }


def plain(value: Decimal) -> str:
    """Format a price as short decimal text without an exponent."""
    return f"{value.normalize():f}"


def _rates(rates: Rates) -> dict[str, str | None]:
    return {name: None if (value := getattr(rates, name)) is None else plain(value) for name in RATES}


def iso_day(day: date | None) -> str | None:
    """Format a day, None for none."""
    return None if day is None else day.isoformat()
