"""Convert OpenRouter's list of models (https://openrouter.ai/api/v1/models) to rows of a price list.

Prices are USD per token, as text. A price of -1 stands for a model that is chosen per request, whose price is unknown.
The longest output is not taken over: it is that of one provider behind OpenRouter, and another one may answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from spillway_router.prices.converted import ConvertedPrices, amount, checked_price, text, texts, whole_number
from spillway_router.prices.rows import PriceError

PROVIDER = "openrouter"
_KINDS = {
    "prompt": "input",
    "completion": "output",
    "input_cache_read": "cached_input",
    "input_cache_write": "cache_write",
    "internal_reasoning": "reasoning",
}
_NOT_TAKEN = {
    "web_search": "the fee of a web search comes from the list of bounded fields",
    "image": "pictures are bounded by their tokens, and the charge is the usage.cost of the answer",
}
_NO_PRICES = frozenset({"discount"})
_PARAMETERS = {"tools": "tools", "json_schema": "structured_outputs", "reasoning": "reasoning"}
_MODALITIES = {"vision": "image", "audio": "audio"}


def recognises(data: object) -> bool:
    """Return whether parsed JSON is a list of this kind."""
    rows = data.get("data") if isinstance(data, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    pricing = first.get("pricing") if isinstance(first, dict) else None
    return isinstance(pricing, dict) and "prompt" in pricing


def convert(data: Mapping[str, Any], day: str) -> ConvertedPrices:
    """Return every usable price of the list, valid from `day` (ISO) on."""
    models: dict[str, dict[str, Any]] = {}
    skipped: list[tuple[str, str]] = []
    for row in data["data"]:
        name = row.get("id") if isinstance(row, dict) else None
        if not isinstance(name, str):
            continue
        try:
            models[name] = _model(row, day)
            skipped += ((f"{PROVIDER}/{name} ({what})", why) for what, why in _left_out(row["pricing"]))
        except PriceError as error:
            skipped.append((f"{PROVIDER}/{name}", str(error)))
    return ConvertedPrices({PROVIDER: models} if models else {}, tuple(skipped), complete=True)


def _model(row: Mapping[str, Any], day: str) -> dict[str, Any]:
    pricing = row.get("pricing")
    if not isinstance(pricing, Mapping):
        raise PriceError("no price per token")
    rates = {
        ours: amount(theirs, pricing[theirs]).scaleb(6)
        for theirs, ours in _KINDS.items()
        if pricing.get(theirs) is not None and not (ours not in ("input", "output") and _is_zero(pricing[theirs]))
    }
    if not {"input", "output"} <= rates.keys():
        raise PriceError("no price per token")
    price: dict[str, Any] = {"from": day, **texts(rates)}
    if pricing.get("request") is not None and not _is_zero(pricing["request"]):
        price["per_request"] = text(amount("request", pricing["request"]))
    model: dict[str, Any] = {"prices": [checked_price(price)]}
    context = whole_number(row, "context_length")
    if context is not None:
        model["context_tokens"] = context
    if isinstance(row.get("expiration_date"), str):
        model["retired_on"] = row["expiration_date"][:10]
    able = dict(_capabilities(row))
    return {**model, "capabilities": able}


def _capabilities(row: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    parameters = row.get("supported_parameters")
    if isinstance(parameters, list):
        yield from ((ours, theirs in parameters) for ours, theirs in _PARAMETERS.items())
    architecture = row.get("architecture")
    modalities = architecture.get("input_modalities") if isinstance(architecture, Mapping) else None
    if isinstance(modalities, list):
        yield from ((ours, theirs in modalities) for ours, theirs in _MODALITIES.items())


def _left_out(pricing: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the prices of a model that its row doesn't hold, and what follows."""
    for name, value in pricing.items():
        if name not in _KINDS and name not in _NO_PRICES and name != "request" and not _is_zero(value):
            yield name, _NOT_TAKEN.get(name, "it has no place in a price; what it prices may cost more than its bound")


def _is_zero(value: object) -> bool:
    return value in (None, "", []) or (isinstance(value, str | int | Decimal) and str(value).strip("0.") == "")
