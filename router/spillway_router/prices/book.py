"""The price book: the price lists shipped with Spillway, overridden by the user's own (`spillway prices import`).

There is one shipped list per provider, so that a router reads only those of the providers it uses. A list is read as a
whole, but a row is only checked when its model is looked up, because a router uses a handful of models. That takes a
few milliseconds, at start and on reload only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from spillway_router.core.money.tariff import Tariff
from spillway_router.prices.rows import ModelRecord, PriceError, load_json, model_record

LISTS = Path(__file__).with_name("lists")
"""The folder of the shipped lists: PROVIDER.json."""
UNIT = "USD per million tokens"
SOURCE = "snapshot"
OWN_SOURCE = "import"
_Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class PriceList:
    """One file: provider -> model -> row, not yet checked. `checked_on` is the day of the whole list."""

    name: str
    source: str
    checked_on: date | None
    licence: str
    providers: _Rows
    origin: str = ""
    """Who published the prices of which a row doesn't say it."""

    def row(self, provider: str, model: str) -> Mapping[str, Any] | None:
        """Return the row of a model, that of its name without a suffix if the row permits the suffix; else None."""
        models = self.providers.get(provider, {})
        row = models.get(model)
        if row is None and ":" in model:
            base, _, suffix = model.rpartition(":")
            row = models.get(base)
            if row is not None and suffix not in (row.get("suffixes") or ()):
                return None
        return row

    def with_origin(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of this list whose prices say who published them."""
        prices = row.get("prices", ())
        return {**row, "prices": [{"origin": self.origin, **price} if self.origin else price for price in prices]}


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Several price lists, of which later ones override earlier ones."""

    lists: tuple[PriceList, ...]

    def record(self, provider: str, model: str) -> ModelRecord | None:
        """Return the record of a model, None if no list has it. Raises PriceError for a row that can't be used.

        A fine-tuned OpenAI model (`ft:gpt-4.1-mini-2025-04-14:org::id`) has the record of its base (`ft:gpt-4.1-…`).
        """
        rows = self._rows(provider, model)
        if not rows and model.startswith("ft:"):
            rows = self._rows(provider, ":".join(model.split(":")[:2]))
        if not rows:
            return None
        try:
            return model_record([(part.source, part.checked_on, part.with_origin(row)) for part, row in rows])
        except PriceError as error:
            where = rows[-1][0].name
            raise PriceError(f"{where}: the price of {provider}/{model} can't be used: {error}") from None

    def models(self) -> Iterator[tuple[str, str]]:
        """Yield (provider, model) of every row, with providers in the order of the lists and models by name."""
        providers = dict.fromkeys(provider for part in self.lists for provider in part.providers)
        for provider in providers:
            names = {model for part in self.lists for model in part.providers.get(provider, {})}
            yield from ((provider, model) for model in sorted(names))

    def of_provider(self, provider: str) -> Mapping[str, Sequence[tuple[PriceList, Mapping[str, Any]]]]:
        """Return all rows of a provider by model, those of earlier lists first."""
        names = {model for part in self.lists for model in part.providers.get(provider, {})}
        return {model: self._rows(provider, model) for model in sorted(names)}

    def _rows(self, provider: str, model: str) -> list[tuple[PriceList, Mapping[str, Any]]]:
        rows = ((part, part.row(provider, model)) for part in self.lists)
        return [(part, row) for part, row in rows if row is not None]


def read_list(path: Path, source: str) -> PriceList:
    """Read a price list. Raises PriceError, which says what is wrong with the file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PriceError(f"price list {path} can't be read: {error.strerror or error}") from None
    try:
        return parse_list(load_json(text), str(path), source)
    except PriceError as error:
        raise PriceError(f"price list {path}: {error}") from None


def parse_list(data: object, name: str, source: str) -> PriceList:
    """Return the price list of parsed JSON. Raises PriceError if the JSON has another shape."""
    providers = data.get("providers") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(providers, dict):
        raise PriceError("it has no `providers`; a price list is {providers: {NAME: {MODEL: {prices: [...]}}}}")
    for provider, models in providers.items():
        if not isinstance(models, dict):
            raise PriceError(f"providers.{provider} must be an object: model name -> prices")
    if data.get("unit", UNIT) != UNIT:
        raise PriceError(f"its unit is {data['unit']!r}; prices must be in {UNIT}, so convert them first")
    snapshot = data.get("snapshot")
    try:
        checked = None if snapshot is None else date.fromisoformat(snapshot)
    except (TypeError, ValueError):
        raise PriceError(f"`snapshot` is {snapshot!r}; write the day of the prices, like 2026-11-20") from None
    return PriceList(
        name=name,
        source=source,
        checked_on=checked,
        licence=str(data.get("licence", "")),
        providers=providers,
        origin=str(data.get("origin", "")),
    )


def book(own: Path | None = None, providers: Collection[str] | None = None) -> PriceBook:
    """Return the shipped prices, overridden by those of the user's file if it exists. Raises PriceError.

    With `providers`, the shipped prices of no other provider are read.
    """
    lists = [read_list(path, SOURCE) for path in shipped_lists() if providers is None or path.stem in providers]
    if own is not None and own.exists():
        lists.append(read_list(own, OWN_SOURCE))
    return PriceBook(tuple(lists))


def shipped_lists() -> Sequence[Path]:
    """Return the files of the shipped lists, one per provider."""
    return sorted(LISTS.glob("*.json"))


def record(provider: str, model: str) -> ModelRecord | None:
    """Return the shipped record of a model. Raises PriceError for a damaged file."""
    return book(providers=(provider,)).record(provider, model)


def priced(
    prices: PriceBook, today: date, providers: Sequence[str] = ()
) -> Iterator[tuple[str, str, ModelRecord, Tariff | None]]:
    """Yield (provider, model, record, price valid on `today`) of every model, or only of those of `providers`."""
    for provider, model in prices.models():
        if providers and provider not in providers:
            continue
        entry = prices.record(provider, model)
        if entry is not None:
            yield provider, model, entry, entry.tariff(today)
