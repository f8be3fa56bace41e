"""Convert LiteLLM's model_prices_and_context_window.json to rows of a price list.

LiteLLM states prices in USD per token as JSON numbers. They are read digit by digit, so that 10^6 times such a number
is exactly the price per million. The name of a price says what it is for:

    input_cost_per_token                                     input
    cache_creation_input_token_cost_above_1hr                cache write for an hour
    output_cost_per_token_above_200k_tokens                  output of requests with a prompt above 200,000 tokens
    output_cost_per_audio_token                              tokens of sound in the output
    input_cost_per_token_above_272k_tokens_priority          the same in the service `priority`
    provider_specific_entry: {"fast": 2.0, "us": 1.1}        factors of modes; every combination is a service: `fast+us`

A service is known only if the file contains its ordinary input and output prices. What the file says of a model's costs
and is not taken over is named with its reason, never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from math import prod
from typing import Any

from spillway_router.core.money.tariff import STANDARD, service_of
from spillway_router.prices.converted import ConvertedPrices, Rates, text, texts
from spillway_router.prices.rows import RATES, PriceError, dated_price

LICENCE = (
    "Prices derived from model_prices_and_context_window.json of LiteLLM, MIT License, Copyright (c) 2023 Berri AI, "
    "https://github.com/BerriAI/litellm"
)
SOURCES: Mapping[str, tuple[str, str]] = {
    "groq": ("groq", "groq/"),
    "together": ("together_ai", "together_ai/"),
    "openai": ("openai", ""),
    "cerebras": ("cerebras", "cerebras/"),
    "anthropic": ("anthropic", ""),
    "fireworks": ("fireworks_ai", "fireworks_ai/"),
    "openrouter": ("openrouter", "openrouter/"),
}
"""Provider -> LiteLLM's provider, and the prefix of its model names (together's size classes have no prefix)."""
_KINDS = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cached_input",
    "cache_creation_input_token_cost": "cache_write",
    "output_cost_per_reasoning_token": "reasoning",
}
_FIELD = re.compile(rf"({'|'.join(_KINDS)})(_above_\d+hr)?(?:_above_(\d+)k_tokens)?(?:_([a-z]+))?")
_SECONDS = ("input_cost_per_second", "output_cost_per_second")
_REQUEST = "input_cost_per_request"
_MODES = "provider_specific_entry"
_MEDIA = {
    "input_cost_per_audio_token": "audio_input",
    "output_cost_per_audio_token": "audio_output",
    "output_cost_per_image_token": "image_output",
}
_ELSEWHERE = {
    "input_cost_per_image_token": "image tokens of a prompt have a price of their own",
    "output_cost_per_image": "pictures that it makes have a price of their own",
    "input_cost_per_character": "characters have a price of their own",
    "tiered_pricing": "its prices are given as ranges (tiered_pricing)",
}
"""Prices that a Tariff can't express: an upper bound computed without them would be too low."""
_REGIONAL = "the surcharge of a regional host comes from the list of bounded fields"
_NOT_TAKEN = {
    "search_context_cost_per_query": "the fee of a web search comes from the list of bounded fields",
    "code_interpreter_cost_per_session": "a session's fee comes from the list of bounded fields",
    "web_search_cost_per_request": "the fee of a web search comes from the list of bounded fields",
    "fedramp_uplift_multiplier": "it belongs to a host of its own; set `price:` on a backend that uses that host",
    "regional_processing_uplift_multiplier_eu": _REGIONAL,
    "regional_processing_uplift_multiplier_us": _REGIONAL,
}
"""Costs of a usable model that its row doesn't hold, with what happens to them instead."""
_UNKNOWN_COST = "its meaning is not known; what it prices may cost more than its bound"
_COST = re.compile(r"(?:^|_)(?:cost|multiplier|price|pricing|fee)(?:_|$)")
_ABILITIES = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "json_schema": "supports_response_schema",
    "reasoning": "supports_reasoning",
    "audio": "supports_audio_input",
}


def convert_rows(raw: Mapping[str, Any], day: str) -> ConvertedPrices:
    """Return every usable price of the file, valid from `day` (ISO) on."""
    providers: dict[str, dict[str, dict[str, Any]]] = {}
    skipped: list[tuple[str, str]] = []
    for provider, (theirs, prefix) in SOURCES.items():
        models: dict[str, dict[str, Any]] = {}
        for name, row in sorted(_rows(raw, theirs, prefix)):
            try:
                models[name] = _model(row, day, prefix)
                skipped += ((f"{provider}/{name} ({what})", why) for what, why in _left_out(row))
            except PriceError as error:
                skipped.append((f"{provider}/{name}", str(error)))
        if models:
            providers[provider] = models
    return ConvertedPrices(providers, tuple(skipped), LICENCE, complete=True)


def _rows(raw: Mapping[str, Any], theirs: str, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, row in raw.items():
        if isinstance(row, dict) and row.get("litellm_provider") == theirs and name.startswith(prefix):
            yield name.removeprefix(prefix), row


def _model(row: Mapping[str, Any], day: str, prefix: str) -> dict[str, Any]:
    """Return the row of a price list. Raises PriceError, which says why the price can't be used."""
    for name, why in _ELSEWHERE.items():
        if row.get(name):
            raise PriceError(f"{why}, which is not supported")
    price = {"from": day, **price_of(row)}
    dated_price(price, "")  # raises for a price out of range
    model: dict[str, Any] = {"prices": [price]}
    for ours, theirs in (("context_tokens", "max_input_tokens"), ("max_output_tokens", "max_output_tokens")):
        if isinstance(row.get(theirs), int):
            model[ours] = row[theirs]
    if row.get("deprecation_date"):
        model["retired_on"] = str(row["deprecation_date"])
    if isinstance(row.get("successor_model"), str):
        model["successor"] = row["successor_model"].removeprefix(prefix)
    # The file names the models that see pictures; the other abilities it leaves out for many that have them.
    model["capabilities"] = {"vision": False} | {
        ours: row[theirs] for ours, theirs in _ABILITIES.items() if isinstance(row.get(theirs), bool)
    }
    return model


def is_price(field: str) -> bool:
    """Return whether a field is a price that `price_of` reads."""
    return field in _SECONDS or field == _REQUEST or field in _MEDIA or _FIELD.fullmatch(field) is not None


def price_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the price of a model by Spillway's names, without its days, given LiteLLM's fields as int or Decimal.

    Raises PriceError if the row doesn't say what a token costs.
    """
    by_place = _places(row)
    second = _per_second(row)
    base = by_place.get((STANDARD, 0), {})
    if second:
        base = {"input": Decimal(0), "output": Decimal(0), **base}
    if "input" not in base or "output" not in base:
        raise PriceError("no price per token")
    request = row.get(_REQUEST)
    price: dict[str, Any] = texts(base)
    price |= {ours: text(_per_million(theirs, row[theirs])) for theirs, ours in _MEDIA.items() if row.get(theirs)}
    if request:
        price["per_request"] = text(_number(_REQUEST, request))
    if second:
        price["per_second"] = text(second)
    if not any(base.values()) and not request and not second:
        # A price of 0 at a paid API is a gap in the source, and an unknown price is never 0.
        raise PriceError("a price of 0")
    steps = _steps(by_place, base)
    steps += _mode_steps(_factors(row), base, [step for step in steps if "service" not in step])
    return {**price, "steps": steps} if steps else price


def _places(row: Mapping[str, Any]) -> dict[tuple[str, int], Rates]:
    """Return the prices per million tokens by service and length of the prompt from which on they hold."""
    by_place: dict[tuple[str, int], Rates] = {}
    for field, value in row.items():
        match = _FIELD.fullmatch(field)
        if match is None or value is None:
            continue
        kind, hours, above, service = match.groups()
        name = "cache_write_long" if hours else _KINDS[kind]
        rates = by_place.setdefault((service_of(service or STANDARD), int(above or 0) * 1000), {})
        # Caches that last one hour and twelve have one name here; the dearer of both is the bound.
        rates[name] = max(_per_million(field, value), rates.get(name, Decimal(0)))
    return by_place


def _steps(by_place: Mapping[tuple[str, int], Rates], base: Rates) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for (service, above), rates in sorted(by_place.items()):
        usual = base if service == STANDARD else by_place.get((service, 0), {})
        if (service, above) == (STANDARD, 0) or "input" not in usual or "output" not in usual:
            continue
        whole = {**base, **usual, **by_place.get((STANDARD, above), {}), **rates} if above else {**base, **rates}
        _fill(whole, rates, long=above > 0)
        step: dict[str, Any] = {"service": service} if service else {}
        if above:
            step["above_tokens"] = above
        steps.append(step | texts(whole))
    return steps


def _factors(row: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return the modes of a model with the factors of their prices."""
    modes = row.get(_MODES)
    if not isinstance(modes, dict):
        return {}
    return {name: Decimal(factor) for name, factor in modes.items() if _is_factor(factor)}


def _left_out(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the file says of the costs of a model and its row doesn't hold, and what follows."""
    for name, value in row.items():
        if value and name != _MODES and _COST.search(name) and not is_price(name):
            yield name, _NOT_TAKEN.get(name, _UNKNOWN_COST)
    places = _places(row)
    for service in sorted({service for service, _ in places} - {STANDARD}):
        if not {"input", "output"} <= set(places.get((service, 0), {})):
            yield service, "its price of ordinary prompts is missing, so that requests for this mode are refused"
    modes = row.get(_MODES)
    for name, factor in modes.items() if isinstance(modes, dict) else ():
        if not _is_factor(factor):
            yield name, "its factor is no number, so that requests for this mode are refused"


def _is_factor(value: object) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and value > 0


def _mode_steps(
    factors: Mapping[str, Decimal], base: Rates, usual_steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the steps of each combination of modes: every price of an ordinary request times their factors."""
    steps: list[dict[str, Any]] = []
    for size in range(1, len(factors) + 1):
        for modes in combinations(sorted(factors), size):
            factor = prod(factors[mode] for mode in modes)
            service = {"service": "+".join(modes)}
            steps.append(service | texts({name: rate * factor for name, rate in base.items()}))
            for step in usual_steps:
                rates = {name: Decimal(step[name]) * factor for name in RATES if name in step}
                steps.append(service | {"above_tokens": step["above_tokens"]} | texts(rates))
    return steps


def _fill(whole: Rates, stated: Rates, *, long: bool) -> None:
    """Replace the prices that a step doesn't state and that come from ordinary requests by upper bounds."""
    if "cached_input" in whole and "cached_input" not in stated:
        # For the same length, another service bills a cache hit at most at the ordinary price; for long prompts the
        # price of a hit is unknown.
        whole["cached_input"] = whole["input"] if long else min(whole["cached_input"], whole["input"])
    for kind, part_of in (("cache_write", "input"), ("cache_write_long", "cache_write")):
        if kind in whole and kind not in stated:
            whole[kind] = max(whole[kind], whole.get(part_of, whole["input"]))


def _per_second(row: Mapping[str, Any]) -> Decimal:
    """Return USD per second. Files state it for input, for output, or twice with the same value."""
    prices = {_number(name, row[name]) for name in _SECONDS if row.get(name)}
    if len(prices) > 1:
        raise PriceError("different prices per second for input and output, which is not supported")
    return next(iter(prices), Decimal(0))


def _number(field: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value < 0:
        raise PriceError(f"no price per token: {field} is {value!r}")
    return Decimal(value)


def _per_million(field: str, value: object) -> Decimal:
    return _number(field, value).scaleb(6)
