"""What the converters of price files have in common: their result, and how they read amounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from spillway_router.prices.rows import RATES, PriceError, bounded_decimal, dated_price

Rates = dict[str, Decimal]
"""Prices in USD per million tokens, by the names of rows.py."""


@dataclass(frozen=True, slots=True)
class ConvertedPrices:
    """Rows by provider and model, and what was left out as (provider/model, reason).

    `complete` is true if the file repeats all that its source knows of a model, so that what it leaves out is
    withdrawn. `licence` is the line that goes with the prices, empty if none is needed.
    """

    providers: Mapping[str, Mapping[str, dict[str, Any]]]
    skipped: tuple[tuple[str, str], ...]
    licence: str = ""
    complete: bool = False


def amount(name: str, value: object) -> Decimal:
    """Return a price of a file as it is written, as text or number. Raises PriceError if it is none or is negative."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise PriceError(f"no price per token: {name} is {value!r}")
    try:
        price = bounded_decimal(str(value))
    except ValueError:
        raise PriceError(f"no price per token: {name} is {str(value)[:40]!r}") from None
    if not price.is_finite() or price < 0:
        raise PriceError(f"no price per token: {name} is {value!r}")
    return price


def text(value: Decimal) -> str:
    """Return a price as short decimal text without an exponent."""
    return f"{value.normalize():f}"


def texts(rates: Mapping[str, Decimal]) -> dict[str, Any]:
    """Return prices per million tokens as the decimal text of a row, in the order of rows.py."""
    return {name: text(rates[name]) for name in RATES if name in rates}


def checked_price(price: dict[str, Any]) -> dict[str, Any]:
    """Return a price of a row after a check. Raises PriceError for one that is out of range or costs nothing."""
    _, tariff = dated_price(price, "")
    if tariff.free:
        # A price of 0 at a paid API is a gap in the source, and an unknown price is never 0.
        raise PriceError("a price of 0")
    return price


_HOUR_WRITE = Decimal(2)
"""What a write to Anthropic's cache for an hour costs, as a multiple of the input
(platform.claude.com/docs/en/about-claude/pricing); whoever passes the call on to Anthropic passes that on, too."""


def with_hour_writes(model: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a model's row with the price of a cache write for an hour, where it is a Claude whose source lists only
    the usual write: a request chooses between both, and the hold must cover the dearer one."""
    if "claude" not in model.lower():
        return row
    return {**row, "prices": [_with_hour_write(price) for price in row["prices"]]}


def _with_hour_write(price: dict[str, Any]) -> dict[str, Any]:
    if "cache_write" in price and "cache_write_long" not in price:
        price = {**price, "cache_write_long": text(Decimal(price["input"]) * _HOUR_WRITE)}
    if "steps" in price:
        price = {**price, "steps": [_with_hour_write(step) for step in price["steps"]]}
    return price


def whole_number(row: Mapping[str, Any], name: str) -> int | None:
    """Return a count of a file, None if it is absent or no whole number above 0."""
    value = row.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
