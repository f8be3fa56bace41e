"""The price lists: the one that comes with Spillway, and over it the user's own, written by `spillway prices import`.

A list is read as a whole and its rows are checked when a model is asked for: a router knows a handful of models. That
takes a few milliseconds, at start and on reload only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from spillway_router.core.money.tariff import Tariff
from spillway_router.prices.rows import ModelRecord, load_json, model_record
from spillway_router.providers.interface import ProviderError

PRICES_FILE = Path(__file__).with_name("prices.json")
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


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Several lists, later ones over earlier ones."""

    lists: tuple[PriceList, ...]

    def record(self, provider: str, model: str) -> ModelRecord | None:
        """What is known of a model, None where no list has it. Raises ProviderError for a row that can't be used.

        A fine-tuned OpenAI model (`ft:gpt-4.1-mini-2025-04-14:org::id`) has the record of its base (`ft:gpt-4.1-…`).
        """
        rows = self._rows(provider, model)
        if not rows and model.startswith("ft:"):
            rows = self._rows(provider, ":".join(model.split(":")[:2]))
        if not rows:
            return None
        try:
            return model_record([(found.source, found.checked_on, row) for found, row in rows])
        except ProviderError as error:
            where = rows[-1][0].name
            raise ProviderError(f"{where}: the price of {provider}/{model} is not usable: {error}") from None

    def models(self) -> Iterator[tuple[str, str]]:
        """(provider, model) of every row, providers in the order of the lists, models by name."""
        providers = dict.fromkeys(provider for found in self.lists for provider in found.providers)
        for provider in providers:
            names = {model for found in self.lists for model in found.providers.get(provider, {})}
            yield from ((provider, model) for model in sorted(names))

    def _rows(self, provider: str, model: str) -> list[tuple[PriceList, Mapping[str, Any]]]:
        found = ((part, part.providers.get(provider, {}).get(model)) for part in self.lists)
        return [(part, row) for part, row in found if row is not None]


def read_list(path: Path, source: str) -> PriceList:
    """A price file. Raises ProviderError that says what is wrong with it."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ProviderError(f"price list {path} can't be read: {error.strerror or error}") from None
    try:
        return parse_list(load_json(text), str(path), source)
    except ProviderError as error:
        raise ProviderError(f"price list {path}: {error}") from None


def parse_list(data: object, name: str, source: str) -> PriceList:
    """A price list from its JSON. Raises ProviderError where that has another shape."""
    providers = data.get("providers") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(providers, dict):
        raise ProviderError("it has no `providers`; a price list is {providers: {NAME: {MODEL: {prices: [...]}}}}")
    for provider, models in providers.items():
        if not isinstance(models, dict):
            raise ProviderError(f"providers.{provider} must be an object: model name -> prices")
    if data.get("unit", UNIT) != UNIT:
        raise ProviderError(f"its unit is {data['unit']!r}; prices must be in {UNIT}, so convert them first")
    snapshot = data.get("snapshot")
    try:
        checked = None if snapshot is None else date.fromisoformat(snapshot)
    except (TypeError, ValueError):
        raise ProviderError(f"`snapshot` is {snapshot!r}; write the day of the prices, like 2026-11-20") from None
    return PriceList(name, source, checked, str(data.get("licence", "")), providers)


def book(own: Path | None = None) -> PriceBook:
    """The shipped prices, and over them those of the user's file if there is one. Raises ProviderError."""
    lists = [read_list(PRICES_FILE, SOURCE)]
    if own is not None and own.exists():
        lists.append(read_list(own, OWN_SOURCE))
    return PriceBook(tuple(lists))


def record(provider: str, model: str, path: Path = PRICES_FILE) -> ModelRecord | None:
    """The record of a model in one list. Raises ProviderError for a damaged file."""
    return PriceBook((read_list(path, SOURCE),)).record(provider, model)


def priced(
    found: PriceBook, today: date, providers: Sequence[str] = ()
) -> Iterator[tuple[str, str, ModelRecord, Tariff | None]]:
    """(provider, model, record, the price valid on `today`) of every model, or of those of `providers` only."""
    for provider, model in found.models():
        if providers and provider not in providers:
            continue
        known = found.record(provider, model)
        if known is not None:
            yield provider, model, known, known.tariff(today)
