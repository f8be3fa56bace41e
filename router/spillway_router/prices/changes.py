"""The differences between two price books on a day: each price by its name, with its unit."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
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
"""A price that changes by more than this factor is more often a wrong unit than a new price."""


@dataclass(frozen=True, slots=True)
class Change:
    """One price that differs, as decimal text, None if it is absent; `percent` is None without an old price above 0."""

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
    """Return name -> (price, unit) of everything that a tariff states."""
    prices = {name: (value, UNIT) for name, value in _stated(tariff.rates)}
    for step in tariff.steps:
        prices |= {f"{name}{step_name(step)}": (value, UNIT) for name, value in _stated(step.rates)}
    if tariff.per_request:
        prices["per request"] = (tariff.per_request, PER_REQUEST)
    if tariff.per_second:
        prices["per second"] = (tariff.per_second, PER_SECOND)
    return prices


def step_name(step: TariffStep) -> str:
    """Return where a step applies, as a suffix for the name of a price."""
    above = f", prompts above {step.above_tokens:,} tokens" if step.above_tokens else ""
    return f"{above}, {step.service}" if step.service else above


def changes(before: PriceBook, after: PriceBook, day: date) -> Iterator[Change]:
    """Yield every price that differs on `day`. Models that only `before` has count only for the providers of
    `after`."""
    old = {(provider, model): tariff for provider, model, _, tariff in priced(before, day)}
    new = {(provider, model): tariff for provider, model, _, tariff in priced(after, day)}
    providers = {provider for provider, _ in new}
    for model in sorted(old.keys() | new.keys()):
        if model[0] in providers:
            yield from _between(*model, old.get(model), new.get(model))


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A model that is withdrawn, or that a list doesn't name any more (`retired_on` is None)."""

    provider: str
    model: str
    retired_on: date | None
    successor: str


def withdrawals(
    before: PriceBook, after: PriceBook, listed: Mapping[str, Container[str]], day: date, *, complete: bool
) -> Iterator[Withdrawal]:
    """Yield the models of `before` whose withdrawal `after` announces, and those that a complete list of their provider
    doesn't name any more.

    `listed` are the models of the new list by provider. Models that were withdrawn before `day` are no news.
    """
    for provider, models in listed.items():
        for _, model, was, _ in priced(before, day, (provider,)):
            now = after.record(provider, model)
            if now is None or (was.retired_on is not None and was.retired_on <= day):
                continue
            if complete and model not in models:
                yield Withdrawal(provider, model, None, now.successor)
            elif now.retired_on is not None and now.retired_on != was.retired_on:
                yield Withdrawal(provider, model, now.retired_on, now.successor)


def _between(provider: str, model: str, old: Tariff | None, new: Tariff | None) -> Iterator[Change]:
    before = {} if old is None else named_prices(old)
    after = {} if new is None else named_prices(new)
    kind: Literal["added", "changed", "removed"] = "added" if old is None else "removed" if new is None else "changed"
    for name in [*before, *(n for n in after if n not in before)]:
        old_price, old_unit = before.get(name, (None, ""))
        new_price, new_unit = after.get(name, (None, ""))
        if old_price == new_price:
            continue
        percent, suspicious = _growth(old_price, new_price)
        yield Change(
            kind=kind,
            provider=provider,
            model=model,
            price=name,
            old=None if old_price is None else _plain(old_price),
            new=None if new_price is None else _plain(new_price),
            unit=new_unit or old_unit,
            percent=percent,
            suspicious=suspicious,
        )


def _growth(old: Decimal | None, new: Decimal | None) -> tuple[str | None, bool]:
    """Return the change in percent with its sign, and whether it is suspiciously large."""
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
    """Return a price as short decimal text without an exponent."""
    return f"{value.normalize():f}"
