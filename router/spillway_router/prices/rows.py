"""One model of a price list: from JSON to dated tariffs and limits, checked key by key.

A price list is one JSON object. Prices are in USD per million tokens unless noted otherwise:

    {"licence": "...", "snapshot": "2026-11-20", "providers": {"groq": {"some/model": {
        "prices": [{"from": "2026-11-20", "input": "0.15", "output": "0.6", "cached_input": "0.075",
                    "steps": [{"above_tokens": 200000, "input": "0.3", "output": "0.9"},
                              {"service": "batch", "input": "0.075", "output": "0.3"}]}],
        "context_tokens": 131072, "max_output_tokens": 65536, "retired_on": "2027-01-31", "successor": "other/model",
        "capabilities": {"tools": true, "vision": false}}}}}

Optional in a price: until (its last day), cached_input, cache_write (kept for minutes), cache_write_long (kept for an
hour or longer), reasoning, audio_input, audio_output, image_output (tokens of sound and of generated pictures, which
cost the same as text where these are left out), per_request (USD), per_second (USD), steps, and origin (who published
it; by default the file's `origin`). Optional in a model: everything except prices; also deprecated_on, checked_on (the
day somebody last checked the price; by default the file's `snapshot`) and suffixes (what may follow the name after a
colon at the same price). A capability that is left out is unknown; a model without `capabilities` sees pictures only if
`vision` is true. Prices are decimal text or JSON numbers, which are read digit by digit and never become floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from spillway_router.core.money.tariff import MEDIA, STANDARD, Rates, Tariff, TariffError, TariffStep

RATES = tuple(rate.name for rate in fields(Rates))
"""The names of the prices per million tokens."""
_REQUIRED = ("input", "output")
MOST_DIGITS = 30
"""The largest power of ten in a price, up or down."""
CAPABILITIES = ("tools", "vision", "json_schema", "reasoning", "audio")
"""What a price list may say of a model, in the order in which it is shown."""
_PRICE_KEYS = frozenset({*RATES, *MEDIA, "from", "until", "per_request", "per_second", "steps", "origin"})
_STEP_KEYS = frozenset({*RATES, "above_tokens", "service"})
_MODEL_KEYS = frozenset(
    {
        "prices",
        "context_tokens",
        "max_output_tokens",
        "deprecated_on",
        "retired_on",
        "successor",
        "checked_on",
        "vision",
        "capabilities",
        "suffixes",
    }
)


class PriceError(TariffError):
    """A price list, or a price in it, can't be used; the message says what to change."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The entries of the price lists for one model; `prices` are pairs (valid from, Tariff), oldest first."""

    prices: tuple[tuple[date, Tariff], ...]
    context_tokens: int | None
    max_output_tokens: int | None
    retired_on: date | None
    """The day from which on the provider no longer serves the model."""
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    """What the model is known to be able to do, and not to do."""
    deprecated_on: date | None = None
    """The day from which on the provider advises against the model."""
    checked_on: date | None = None
    """The day on which somebody last compared the price with the provider's price page."""
    successor: str = ""
    """The model that its provider recommends instead; empty if none is known."""
    origins: Mapping[date, str] = field(default_factory=dict)
    """Who published a price, by the first day of the price."""

    def tariff(self, today: date) -> Tariff | None:
        """Return the price valid on `today`, None if the newest price has ended.

        Before the first known date the first price applies, because no older one is known.
        """
        tariff = self._on(today)[1]
        return None if tariff.valid_until is not None and date.fromisoformat(tariff.valid_until) < today else tariff

    def origin(self, today: date) -> str:
        """Return who published the price of `today`, empty if nobody is named."""
        return self.origins.get(self._on(today)[0], "")

    def _on(self, today: date) -> tuple[date, Tariff]:
        started = [price for price in self.prices if price[0] <= today]
        return started[-1] if started else self.prices[0]


def load_json(text: bytes) -> Any:
    """Parse JSON, reading its numbers as int and Decimal, never as float. Raises PriceError."""
    try:
        return json.loads(text, parse_float=bounded_decimal, parse_constant=_no_number, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise PriceError(f"not valid JSON: {error}; use the file as it was published") from None


def bounded_decimal(text: str) -> Decimal:
    """Return a number of a price list. Raises ValueError for one that no price is: its digits would fill the memory."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text[:40]} is no price") from None
    if number and abs(number.adjusted()) > MOST_DIGITS:
        raise ValueError(f"{text[:40]} is no price")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of a list of pairs. Raises ValueError for a key with two different values."""
    values = dict(pairs)
    if len(values) < len(pairs):
        duplicate = next((name for name, value in pairs if values[name] != value), None)
        if duplicate is not None:
            raise ValueError(f"duplicate key {duplicate!r} with different values; keep one")
    return values


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a price")


def dated_price(row: Mapping[str, Any], source: str) -> tuple[date, Tariff]:
    """Return (valid from, Tariff) of one price. Raises PriceError, which names the faulty key."""
    _only(row, _PRICE_KEYS, "a price")
    _text(row, "origin")
    start = _date(row, "from")
    if start is None:
        raise PriceError("a price has no `from`; add its first day, like 2026-11-20")
    rates = _rates(row, "")
    until = _date(row, "until")
    try:
        tariff = Tariff(
            input_per_million=rates.input,
            output_per_million=rates.output,
            cached_input_per_million=rates.cached_input,
            per_request=_amount(row, "per_request"),
            valid_from=start.isoformat(),
            source=source,
            cache_write_per_million=rates.cache_write,
            cache_write_long_per_million=rates.cache_write_long,
            reasoning_per_million=rates.reasoning,
            per_second=_amount(row, "per_second"),
            steps=tuple(_step(step) for step in row.get("steps", ())),
            valid_until=None if until is None else until.isoformat(),
            media=tuple((name, decimal(row[name], name)) for name in MEDIA if row.get(name) is not None),
        )
    except PriceError:
        raise
    except TariffError as error:
        raise PriceError(str(error)) from None
    return start, tariff


def model_record(rows: list[tuple[str, date | None, Mapping[str, Any]]]) -> ModelRecord:
    """Return one model from its rows in several lists; each is (source, day the list was checked, row).

    Later lists override earlier ones. Their dated prices are merged; of two with the same first day, the later list's
    applies. Raises PriceError.
    """
    dated: dict[date, Tariff] = {}
    origins: dict[date, str] = {}
    merged: dict[str, Any] = {}
    able: dict[str, bool] = {}
    checked: list[date] = []
    for source, snapshot, row in rows:
        _only(row, _MODEL_KEYS, "a model")
        for price in row.get("prices", ()):
            start, tariff = dated_price(price, source)
            dated[start], origins[start] = tariff, _text(price, "origin")
        merged |= row
        able |= _capabilities(row)
        day = _date(row, "checked_on") or snapshot
        checked += [day] if day is not None else []
    if not dated:
        raise PriceError("it has no prices; add `prices` with at least one")
    return ModelRecord(
        prices=tuple(sorted(dated.items())),
        context_tokens=_count(merged, "context_tokens"),
        max_output_tokens=_count(merged, "max_output_tokens"),
        retired_on=_date(merged, "retired_on"),
        capabilities=able,
        deprecated_on=_date(merged, "deprecated_on"),
        checked_on=max(checked, default=None),
        successor=_text(merged, "successor"),
        origins=origins,
    )


def _capabilities(row: Mapping[str, Any]) -> dict[str, bool]:
    """Return what a row says of the model's capabilities. Raises PriceError."""
    able = row.get("capabilities")
    if able is None:
        return {"vision": bool(row.get("vision"))}
    _only(able, frozenset(CAPABILITIES), "`capabilities`")
    for name, value in able.items():
        if not isinstance(value, bool):
            raise PriceError(f"`capabilities.{name}` is {value!r}; write true or false, or leave it out")
    return dict(able)


def _step(row: Mapping[str, Any]) -> TariffStep:
    _only(row, _STEP_KEYS, "a step")
    above = _count(row, "above_tokens") or 0
    service = row.get("service", STANDARD)
    if not isinstance(service, str):
        raise PriceError(f"a step's service is {service!r}; write a name like batch")
    return TariffStep(_rates(row, f" of the step above {above} tokens"), above, service)


def _rates(row: Mapping[str, Any], where: str) -> Rates:
    for name in _REQUIRED:
        if row.get(name) is None:
            raise PriceError(f"`{name}`{where} is missing; an unknown price is never 0, so state it")
    return Rates(**{name: decimal(row[name], name) for name in RATES if row.get(name) is not None})


def decimal(value: object, name: str) -> Decimal:
    """Return a price given as decimal text or a JSON number. Raises PriceError."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise PriceError(f'`{name}` is {value!r}; write a price like "0.15"')
    try:
        return bounded_decimal(str(value))
    except ValueError:
        raise PriceError(f'`{name}` is {str(value)[:40]!r}; write a price like "0.15"') from None


def _amount(row: Mapping[str, Any], name: str) -> Decimal:
    return Decimal(0) if row.get(name) is None else decimal(row[name], name)


def _count(row: Mapping[str, Any], name: str) -> int | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise PriceError(f"`{name}` is {value!r}; write a whole number of tokens")
    return value


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise PriceError(f"`{name}` is {value!r}; write a text")
    return value or ""


def _date(row: Mapping[str, Any], name: str) -> date | None:
    value = row.get(name)
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PriceError(f"`{name}` is {value!r}; write a day like 2026-11-20") from None


def _only(row: object, allowed: frozenset[str], what: str) -> None:
    if not isinstance(row, Mapping):
        raise PriceError(f"{what} must be an object, not {row!r:.60}")
    unknown = sorted(set(row) - allowed)
    if unknown:
        raise PriceError(f"unknown key {unknown[0]!r} in {what}; use {', '.join(sorted(allowed))}")
