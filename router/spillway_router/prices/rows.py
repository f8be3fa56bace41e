"""One model of a price file: from JSON to dated tariffs and limits, checked key by key.

A price file is one JSON object, in USD per million tokens where nothing else is said:

    {"licence": "...", "snapshot": "2026-11-20", "providers": {"groq": {"some/model": {
        "prices": [{"from": "2026-11-20", "input": "0.15", "output": "0.6", "cached_input": "0.075",
                    "steps": [{"above_tokens": 200000, "input": "0.3", "output": "0.9"},
                              {"service": "batch", "input": "0.075", "output": "0.3"}]}],
        "context_tokens": 131072, "max_output_tokens": 65536, "retired_on": "2027-01-31", "vision": true}}}}

Optional in a price: until (its last day), cached_input, cache_write (kept for minutes), cache_write_long (an hour or
longer), reasoning, per_request (USD), per_second (USD), steps. Optional in a model: all but prices; also
deprecated_on and checked_on (the day somebody last looked; else the file's `snapshot`). Prices are decimal text or
JSON numbers, which are read digit by digit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from spillway_router.core.money.tariff import STANDARD, Rates, Tariff, TariffError, TariffStep
from spillway_router.providers.interface import ProviderError

RATES = tuple(field.name for field in fields(Rates))
"""Names of the prices per million tokens."""
_REQUIRED = ("input", "output")
_PRICE_KEYS = frozenset({*RATES, "from", "until", "per_request", "per_second", "steps"})
_STEP_KEYS = frozenset({*RATES, "above_tokens", "service"})
_MODEL_KEYS = frozenset(
    {"prices", "context_tokens", "max_output_tokens", "deprecated_on", "retired_on", "checked_on", "vision"}
)


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What the price lists know of one model; prices are (valid from, Tariff), oldest first."""

    prices: tuple[tuple[date, Tariff], ...]
    context_tokens: int | None
    max_output_tokens: int | None
    retired_on: date | None
    """The day from which the provider no longer serves it."""
    vision: bool
    deprecated_on: date | None = None
    """The day from which the provider advises against it."""
    checked_on: date | None = None
    """The day somebody last compared it with the provider's price page."""

    def tariff(self, today: date) -> Tariff | None:
        """The price valid on `today`, None where the newest one has ended. Before the first known date the first
        price stands: none is older."""
        begun = [tariff for start, tariff in self.prices if start <= today]
        found = begun[-1] if begun else self.prices[0][1]
        return None if found.valid_until is not None and date.fromisoformat(found.valid_until) < today else found


def load_json(text: bytes) -> Any:
    """JSON with its numbers as int and Decimal, never as float. Raises ProviderError."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ProviderError(f"not valid JSON: {error}; give the file as it was published") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a name that stands twice with different values has none of them."""
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next((name for name, value in pairs if made[name] != value), None)
        if twice is not None:
            raise ValueError(f"{twice!r} stands twice with different values; keep one")
    return made


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no price")


def dated_price(row: Mapping[str, Any], source: str) -> tuple[date, Tariff]:
    """(valid from, Tariff) of one price. Raises ProviderError that names the key at fault."""
    _only(row, _PRICE_KEYS, "a price")
    start = _date(row, "from")
    if start is None:
        raise ProviderError("a price has no `from`: add the day it began, like 2026-11-20")
    rates = _rates(row, "")
    until = _date(row, "until")
    try:
        tariff = Tariff(
            rates.input,
            rates.output,
            rates.cached_input,
            _amount(row, "per_request"),
            start.isoformat(),
            source,
            rates.cache_write,
            rates.cache_write_long,
            rates.reasoning,
            _amount(row, "per_second"),
            tuple(_step(step) for step in row.get("steps", ())),
            None if until is None else until.isoformat(),
        )
    except TariffError as error:
        raise ProviderError(str(error)) from None
    return start, tariff


def model_record(rows: list[tuple[str, date | None, Mapping[str, Any]]]) -> ModelRecord:
    """One model from its rows in several lists: (source, day the list was checked, row), later ones over earlier ones.

    Their dated prices are joined; of two with the same first day the later list's holds. Raises ProviderError.
    """
    dated: dict[date, Tariff] = {}
    merged: dict[str, Any] = {}
    checked: list[date] = []
    for source, snapshot, row in rows:
        _only(row, _MODEL_KEYS, "a model")
        dated |= dict(dated_price(price, source) for price in row.get("prices", ()))
        merged |= row
        seen = _date(row, "checked_on") or snapshot
        checked += [seen] if seen is not None else []
    if not dated:
        raise ProviderError("it has no prices: add `prices` with at least one")
    return ModelRecord(
        tuple(sorted(dated.items())),
        _count(merged, "context_tokens"),
        _count(merged, "max_output_tokens"),
        _date(merged, "retired_on"),
        bool(merged.get("vision")),
        _date(merged, "deprecated_on"),
        max(checked, default=None),
    )


def _step(row: Mapping[str, Any]) -> TariffStep:
    _only(row, _STEP_KEYS, "a step")
    above = _count(row, "above_tokens") or 0
    service = row.get("service", STANDARD)
    if not isinstance(service, str):
        raise ProviderError(f"a step's service is {service!r}; write a name like batch")
    return TariffStep(_rates(row, f" of the step above {above} tokens"), above, service)


def _rates(row: Mapping[str, Any], where: str) -> Rates:
    for name in _REQUIRED:
        if row.get(name) is None:
            raise ProviderError(f"`{name}`{where} is missing; an unknown price is never 0, so write it out")
    return Rates(**{name: decimal(row[name], name) for name in RATES if row.get(name) is not None})


def decimal(value: object, name: str) -> Decimal:
    """A price from decimal text or a JSON number. Raises ProviderError."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ProviderError(f'`{name}` is {value!r}; write a price like "0.15"')
    try:
        return Decimal(value)
    except InvalidOperation:
        raise ProviderError(f'`{name}` is {value!r}; write a price like "0.15"') from None


def _amount(row: Mapping[str, Any], name: str) -> Decimal:
    return Decimal(0) if row.get(name) is None else decimal(row[name], name)


def _count(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ProviderError(f"`{name}` is {value!r}; write a whole number of tokens")
    return value


def _date(row: Mapping[str, Any], name: str) -> date | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ProviderError(f"`{name}` is {value!r}; write a day like 2026-11-20") from None


def _only(row: object, known: frozenset[str], what: str) -> None:
    if not isinstance(row, Mapping):
        raise ProviderError(f"{what} must be an object, not {row!r:.60}")
    unknown = sorted(set(row) - known)
    if unknown:
        raise ProviderError(f"unknown key {unknown[0]!r} in {what}; use {', '.join(sorted(known))}")
