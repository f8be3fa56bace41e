"""What differs between two price lists on a day: each price by its name, with its unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

from spillway_router.core.money.tariff import Rates, Tariff, TariffStep
from spillway_router.prices.book import UNIT, PriceBook, priced

PER_REQUEST = "USD per request"
PER_SECOND = "USD per second"
_NAMES = {
    "input": "input",
    "output": "output",
    "cached_input": "cached input",
    "cache_write": "cache write",
    "cache_write_long": "cache write for an hour or longer",
    "reasoning": "reasoning",
}
SUSPICIOUS = 10
"""A price that changes by more than this factor is more often a mistake of units than a new price."""


@dataclass(frozen=True, slots=True)
class Change:
    """One price that differs: decimal text, None where there is none; `percent` None where the old one is 0 or none."""

    kind: Literal["added", "changed", "removed"]
    provider: str
    model: str
    price: str
    old: str | None
    new: str | None
    unit: str
    percent: str | None
    suspicious: bool


def named_prices(tariff: Tariff) -> Mapping[str, tuple[Decimal, str]]:
    """Name -> (price, unit) of everything that a tariff states."""
    found = {name: (value, UNIT) for name, value in _stated(tariff.rates)}
    for step in tariff.steps:
        found |= {f"{name}{step_name(step)}": (value, UNIT) for name, value in _stated(step.rates)}
    if tariff.per_request:
        found["per request"] = (tariff.per_request, PER_REQUEST)
    if tariff.per_second:
        found["per second"] = (tariff.per_second, PER_SECOND)
    return found


def step_name(step: TariffStep) -> str:
    """Where a step applies, as what follows the name of a price."""
    above = f", prompts above {step.above_tokens:,} tokens" if step.above_tokens else ""
    return f"{above}, {step.service}" if step.service else above


def changes(before: PriceBook, after: PriceBook, day: date) -> Iterator[Change]:
    """Every price that differs on `day`. Models that only `before` has count for the providers of `after`."""
    old = {(provider, model): tariff for provider, model, _, tariff in priced(before, day)}
    new = {(provider, model): tariff for provider, model, _, tariff in priced(after, day)}
    told = {provider for provider, _ in new}
    for place in sorted(old.keys() | new.keys()):
        if place[0] in told:
            yield from _between(*place, old.get(place), new.get(place))


def _between(provider: str, model: str, old: Tariff | None, new: Tariff | None) -> Iterator[Change]:
    before = {} if old is None else named_prices(old)
    after = {} if new is None else named_prices(new)
    kind: Literal["added", "changed", "removed"] = "added" if old is None else "removed" if new is None else "changed"
    for name in [*before, *(n for n in after if n not in before)]:
        was, now = before.get(name), after.get(name)
        if was is not None and now is not None and was[0] == now[0]:
            continue
        unit = (now or was or (Decimal(0), ""))[1]
        yield Change(
            kind,
            provider,
            model,
            name,
            None if was is None else _plain(was[0]),
            None if now is None else _plain(now[0]),
            unit,
            *_growth(None if was is None else was[0], None if now is None else now[0]),
        )


def _growth(old: Decimal | None, new: Decimal | None) -> tuple[str | None, bool]:
    """(change in percent with its sign, whether it is suspiciously large)."""
    if old is None or new is None:
        return None, False
    if old == 0 or new == 0:
        return (None if old == 0 else "-100.0"), True
    percent = (new - old) / old * 100
    return f"{percent:+.1f}", max(old, new) > SUSPICIOUS * min(old, new)


def _stated(rates: Rates) -> Iterator[tuple[str, Decimal]]:
    for field, name in _NAMES.items():
        value: Decimal | None = getattr(rates, field)
        if value is not None:
            yield name, value


def _plain(value: Decimal) -> str:
    """A price as short decimal text without an exponent."""
    return f"{value.normalize():f}"
