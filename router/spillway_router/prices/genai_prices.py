"""Convert the data.json of genai-prices (https://github.com/pydantic/genai-prices) to rows of a price list.

It knows what the other lists don't: OpenRouter, and Hugging Face by host, with the days on which prices changed. Prices
are USD per million tokens. Its entries of other providers lack the modes that LiteLLM's file has, and are not taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from spillway_router.prices.converted import ConvertedPrices, Rates, amount, checked_price, text, texts, whole_number
from spillway_router.prices.huggingface import Models, with_any_host
from spillway_router.prices.rows import PriceError

LICENCE = (
    "Prices derived from genai-prices, MIT License, Copyright (c) Pydantic Services Inc. 2025 to present, "
    "https://github.com/pydantic/genai-prices"
)
FIRST_DAY = "1970-01-01"
"""The first day of a price of which only the last day is known."""
_HOST = "huggingface_"
_KINDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_long",
    "output_reasoning_mtok": "reasoning",
}
_MEDIA = {"input_audio_mtok": "audio_input", "output_audio_mtok": "audio_output"}
_REQUESTS = "requests_kcount"
_NOT_TAKEN = {
    "web_searches_kcount": "the fee of a web search comes from the list of bounded fields",
    "cache_audio_read_mtok": "cached sound counts at the price of sound that is not cached",
}


def recognises(data: object) -> bool:
    """Return whether parsed JSON is a list of this kind."""
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and isinstance(first.get("models"), list)


def convert(data: Iterable[Mapping[str, Any]], day: str) -> ConvertedPrices:
    """Return every usable price of the file; a price without a first day is valid from `day` (ISO) on."""
    providers: dict[str, Models] = {"openrouter": {}, "huggingface": {}}
    skipped: list[tuple[str, str]] = []
    for source in data:
        name = source["id"]
        host = name.removeprefix(_HOST) if name.startswith(_HOST) else ""
        provider = "huggingface" if host else name
        if provider not in providers:
            continue
        for model in source["models"]:
            full_names = [f"{model['id']}:{host}"] if host else list(_names(model))
            try:
                row = _model(model, day)
            except PriceError as error:
                skipped.append((f"{provider}/{full_names[0]}", str(error)))
                continue
            providers[provider] |= dict.fromkeys(full_names, row)
            skipped += ((f"{provider}/{full_names[0]} ({what})", why) for what, why in _left_out(model))
    providers["huggingface"] = with_any_host(providers["huggingface"])
    return ConvertedPrices({name: rows for name, rows in providers.items() if rows}, tuple(skipped), LICENCE)


def _names(model: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names by which OpenRouter knows a model: AUTHOR/MODEL, as its own and its canonical one."""
    match = model.get("match", {})
    for clause in ({"equals": model["id"]}, *match.get("or", (match,))):
        name = clause.get("equals", "")
        if "/" in name:
            yield name
    if "/" not in model["id"]:
        yield model["id"]


def _model(model: Mapping[str, Any], day: str) -> dict[str, Any]:
    if "/" not in model["id"]:
        raise PriceError("a name of an earlier time; the model is listed as AUTHOR/MODEL")
    prices = model["prices"]
    dated = list(_dated(prices)) if isinstance(prices, list) else [(day, prices)]
    row: dict[str, Any] = {"prices": [checked_price({"from": start, **_price(price)}) for start, price in dated]}
    context = whole_number(model, "context_window")
    if context is not None:
        row["context_tokens"] = context
    return {**row, "capabilities": {}}


def _dated(prices: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in prices:
        constraint = one.get("constraint") or {}
        if constraint.keys() - {"start_date", "type"}:
            raise PriceError("its price depends on the time of day, which is not supported")
        yield constraint.get("start_date", FIRST_DAY), one["prices"]


def _price(prices: Mapping[str, Any]) -> dict[str, Any]:
    """Return one price with its steps. Raises PriceError if it holds what a row can't."""
    steps: dict[int, Rates] = {}
    base: Rates = {}
    for name, value in prices.items():
        if name in _NOT_TAKEN or name in _MEDIA or name == _REQUESTS:
            continue
        if name not in _KINDS:
            raise PriceError(f"{name} is a price of its own, which is not supported")
        ours = _KINDS[name]
        tiers = value.get("tiers", ()) if isinstance(value, Mapping) else ()
        base[ours] = amount(name, value["base"] if isinstance(value, Mapping) else value)
        for tier in tiers:
            steps.setdefault(tier["start"], {})[ours] = amount(name, tier["price"])
    if not {"input", "output"} <= base.keys():
        raise PriceError("no price per token")
    price = texts(base)
    price |= {ours: text(amount(theirs, prices[theirs])) for theirs, ours in _MEDIA.items() if prices.get(theirs)}
    if prices.get(_REQUESTS):
        price["per_request"] = text(amount(_REQUESTS, prices[_REQUESTS]) / Decimal(1000))
    whole, rows = dict(base), []
    for above in sorted(steps):
        whole |= steps[above]  # what a step doesn't change stays
        rows.append({"above_tokens": above, **texts(whole)})
    return {**price, "steps": rows} if rows else price


def _left_out(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prices = model["prices"]
    stated = [one["prices"] for one in prices] if isinstance(prices, list) else [prices]
    for name in sorted({name for price in stated for name in price} & _NOT_TAKEN.keys()):
        yield name, _NOT_TAKEN[name]
    for variant in model.get("price_variants") or ():
        when = ", ".join(f"{key} {value}" for key, value in variant.get("when", {}).items())
        yield when, "requests for this mode are refused, as its price is not taken over"
