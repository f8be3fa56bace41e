"""The models of a backend that serves any model of its provider (`model: "*"`): those that the price lists name.

The rows of the lists are kept as bytes, about 200 per model, and a model's price is derived when it is first asked for.
No file is read after the start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import orjson

from spillway_router.core.routing.model import Backend
from spillway_router.core.routing.policy import AnyModel
from spillway_router.prices.book import PriceBook
from spillway_router.prices.rows import ModelRecord, PriceError, model_record

MOST_KEPT = 256
"""Most models whose derived backend is kept; the one that was derived first is dropped for the next."""

Serve = Callable[[str, ModelRecord], Backend | str]
"""Returns the backend that serves a model of the lists, or the sentence that says why it can't be used."""


def any_model(name: str, provider: str, book: PriceBook, today: date, serve: Serve) -> AnyModel:
    """Return the models that the backend `name` serves by the prices of a UTC day."""
    models = _ListedModels(name, _rows(provider, book), today, serve)
    return AnyModel(models.backend, models.names)


def _rows(provider: str, book: PriceBook) -> dict[str, bytes]:
    """Return the rows of every model, each with its source and the day of its check, as compact JSON."""
    return {
        model: orjson.dumps(
            [
                (part.source, None if part.checked_on is None else part.checked_on.isoformat(), part.with_origin(row))
                for part, row in rows
            ],
            default="{:f}".format,
        )
        for model, rows in book.of_provider(provider).items()
    }


class _ListedModels:
    """Derives the backend of a model from its rows, and keeps it for the next request."""

    def __init__(self, name: str, rows: Mapping[str, bytes], today: date, serve: Serve) -> None:
        self._name = name
        self._rows = rows
        self._today = today.isoformat()
        self._serve = serve
        self._kept: dict[str, Backend] = {}

    def backend(self, model: str) -> Backend | str:
        """Return the backend of a model, or the sentence that says why the model can't be asked for."""
        kept = self._kept.get(model)
        if kept is not None:
            return kept
        rows = self._stored(model)
        if rows is None:
            return self._unknown(model)
        try:
            served = self._serve(model, model_record(rows))
        except PriceError as error:
            return f"The price of {self._name}/{model} can't be used: {error}."
        if not isinstance(served, str):
            if len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[model] = served
        return served

    def names(self) -> tuple[str, ...]:
        """Return the names of the models that can be asked for, without those that have been withdrawn."""
        return tuple(model for model in self._rows if self._is_offered(model))

    def _stored(self, model: str) -> list[tuple[str, date | None, Mapping[str, Any]]] | None:
        stored = self._rows.get(model)
        base, _, suffix = model.rpartition(":")
        if stored is None and base in self._rows:
            stored = self._rows[base]
            if not any(suffix in (row.get("suffixes") or ()) for _, _, row in orjson.loads(stored)):
                return None
        if stored is None:
            return None
        return [
            (source, None if day is None else date.fromisoformat(day), row) for source, day, row in orjson.loads(stored)
        ]

    def _is_offered(self, model: str) -> bool:
        merged: dict[str, Any] = {}
        for _, _, row in orjson.loads(self._rows[model]):
            merged |= row
        newest = (merged.get("prices") or [{}])[-1]
        billed = any(newest.get(name) not in (None, "0") for name in ("input", "output"))
        return billed and not (merged.get("retired_on") and merged["retired_on"] <= self._today)

    def _unknown(self, model: str) -> str:
        if model in ("", "*"):
            return f"The backend {self._name} serves any model of its price list: name one, as {self._name}/MODEL."
        return (
            f"{self._name} has no known price for {model[:200]!r}, and an unknown price is never 0. Take in a newer "
            "list with `spillway prices update FILE`, or add a backend for the model with a `price:`."
        )
