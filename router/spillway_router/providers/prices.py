"""The shipped price snapshot, read when a model is asked for and not kept: a router knows a handful of models.

prices.json holds dated prices per provider and model (import_prices.py writes it). Reading it takes about a
millisecond, which happens at start and on reload only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, TypeVar

import orjson

from spillway_router.core.tariff import Tariff, TariffError
from spillway_router.providers.base import ProviderError

PRICES_FILE = Path(__file__).with_name("prices.json")
SOURCE = "snapshot"
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What the snapshot knows of one model; prices are (valid from, Tariff), oldest first."""

    prices: tuple[tuple[date, Tariff], ...]
    context_tokens: int | None
    """Longest prompt that its price holds for: where long prompts cost more, the length at which they begin to."""
    max_output_tokens: int | None
    retired_on: date | None
    vision: bool

    def tariff(self, today: date) -> Tariff:
        """The price valid on `today`. Before the first known date the first price stands: none is older."""
        valid = [tariff for start, tariff in self.prices if start <= today]
        return valid[-1] if valid else self.prices[0][1]


def record(provider: str, model: str, path: Path = PRICES_FILE) -> ModelRecord | None:
    """The snapshot's record of a model, None where it has none. Raises ProviderError for a damaged file.

    A fine-tuned OpenAI model (`ft:gpt-4.1-mini-2025-04-14:org::id`) has the record of its base (`ft:gpt-4.1-…`).
    """
    models = _models(provider, path)
    row = models.get(model)
    if row is None and model.startswith("ft:"):
        row = models.get(":".join(model.split(":")[:2]))
    return None if row is None else _record(provider, model, row)


def _models(provider: str, path: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = orjson.loads(path.read_bytes())["providers"].get(provider, {})
    except (OSError, orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ProviderError(f"{path} can't be read ({error!r}); write it anew with import_prices") from None
    return found


def _record(provider: str, model: str, row: Mapping[str, Any]) -> ModelRecord:
    try:
        prices = tuple((date.fromisoformat(p["from"]), _tariff(p)) for p in row["prices"])
        retired = row.get("retired_on")
        limits = [n for key in ("context_tokens", "dearer_above_tokens") if (n := row.get(key)) is not None]
        return ModelRecord(
            tuple(sorted(prices, key=lambda dated: dated[0])),
            min(limits, default=None),
            row.get("max_output_tokens"),
            None if retired is None else date.fromisoformat(retired),
            bool(row.get("vision")),
        )
    except (KeyError, TypeError, ValueError, InvalidOperation, TariffError) as error:
        raise ProviderError(
            f"the price of {provider}/{model} is not usable ({error!r}); give one as `price:`"
        ) from None


def _tariff(price: Mapping[str, str]) -> Tariff:
    cached = price.get("cached_input")
    return Tariff(
        Decimal(price["input"]),
        Decimal(price["output"]),
        None if cached is None else Decimal(cached),
        valid_from=price["from"],
        source=SOURCE,
    )


class Lookup(Mapping[str, V]):
    """Model -> one value of its record, read when asked for. Iterating lists the names that have the value."""

    __slots__ = ("_provider", "_take")

    def __init__(self, provider: str, take: Callable[[ModelRecord], V | None]) -> None:
        self._provider = provider
        self._take = take

    def __getitem__(self, model: str) -> V:
        found = record(self._provider, model)
        value = None if found is None else self._take(found)
        if value is None:
            raise KeyError(model)
        return value

    def __iter__(self) -> Iterator[str]:
        models = _models(self._provider, PRICES_FILE)
        return (m for m, row in models.items() if self._take(_record(self._provider, m, row)) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def newest(found: ModelRecord) -> Tariff:
    """The newest price of a record, whatever the day."""
    return found.prices[-1][1]


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the price list: decimal text in USD per million tokens, None where there is no such price."""

    provider: str
    model: str
    input: str
    output: str
    cached_input: str | None
    valid_from: str
    retired_on: str | None


def listed(today: date, path: Path = PRICES_FILE) -> list[Listed]:
    """The prices valid on `today`, in the snapshot's order of providers and by name of model. Raises ProviderError."""
    rows: list[Listed] = []
    for provider in _providers(path):
        for model, row in sorted(_models(provider, path).items()):
            found = _record(provider, model, row)
            price = found.tariff(today)
            cached = price.cached_input_per_million
            retired = None if found.retired_on is None else found.retired_on.isoformat()
            rows.append(
                Listed(
                    provider,
                    model,
                    f"{price.input_per_million:f}",
                    f"{price.output_per_million:f}",
                    None if cached is None else f"{cached:f}",
                    price.valid_from,
                    retired,
                )
            )
    return rows


def _providers(path: Path) -> tuple[str, ...]:
    try:
        return tuple(orjson.loads(path.read_bytes())["providers"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ProviderError(f"{path} can't be read ({error!r}); write it anew with import_prices") from None
