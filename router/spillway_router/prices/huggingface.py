"""Convert Hugging Face's list of models (https://router.huggingface.co/v1/models) to rows of a price list.

A model is served by several hosts, each at a price of its own in USD per million tokens. `MODEL:HOST` has the price of
that host. A request for `MODEL`, `MODEL:fastest`, `MODEL:cheapest` or `MODEL:preferred` may go to any of them, so that
it is held and charged at the dearest price of each kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from spillway_router.prices.converted import ConvertedPrices, amount, checked_price, text, texts, whole_number
from spillway_router.prices.rows import RATES, PriceError

PROVIDER = "huggingface"
POLICIES = ["fastest", "cheapest", "preferred"]
"""What may stand in the place of a host: huggingface.co/docs/inference-providers."""
_ABILITIES = {"tools": "supports_tools", "json_schema": "supports_structured_output"}
Models = dict[str, dict[str, Any]]


def recognises(data: object) -> bool:
    """Return whether parsed JSON is a list of this kind."""
    rows = data.get("data") if isinstance(data, dict) else None
    first = rows[0] if isinstance(rows, list) and rows else None
    return isinstance(first, dict) and isinstance(first.get("providers"), list)


def convert(data: Mapping[str, Any], day: str) -> ConvertedPrices:
    """Return every usable price of the list, valid from `day` (ISO) on."""
    models: Models = {}
    skipped: list[tuple[str, str]] = []
    for row in data["data"]:
        for name, host in _hosts(row):
            try:
                models[name] = _model(row, host, day)
            except PriceError as error:
                skipped.append((f"{PROVIDER}/{name}", str(error)))
    models = with_any_host(models)
    return ConvertedPrices({PROVIDER: models} if models else {}, tuple(skipped), complete=True)


def with_any_host(models: Mapping[str, Mapping[str, Any]]) -> Models:
    """Return the rows of `MODEL:HOST` with a row `MODEL` for requests that name no host.

    Its price is the dearest of each kind that any host asks on its newest day; its context is the shortest one, and it
    can do what all of them can.
    """
    hosts: dict[str, list[str]] = {}
    for name in models:
        model, colon, host = name.rpartition(":")
        if colon:
            hosts.setdefault(model, []).append(host)
    joined = {model: _dearest([models[f"{model}:{host}"] for host in names], names) for model, names in hosts.items()}
    return {**{name: dict(row) for name, row in models.items()}, **joined}


def _dearest(rows: Sequence[Mapping[str, Any]], hosts: Sequence[str]) -> dict[str, Any]:
    newest = [row["prices"][-1] for row in rows]
    origins = sorted({price["origin"] for price in newest if price.get("origin")})
    price: dict[str, Any] = {"from": max(price["from"] for price in newest), **texts(dict(_dearest_rates(newest)))}
    requests = [Decimal(price["per_request"]) for price in newest if price.get("per_request")]
    if requests:
        price["per_request"] = text(max(requests))
    price["origin"] = f"the dearest of {', '.join(sorted(hosts))}" + (f" ({', '.join(origins)})" if origins else "")
    joined: dict[str, Any] = {"prices": [price], "suffixes": POLICIES}
    contexts = [row["context_tokens"] for row in rows if row.get("context_tokens")]
    if contexts:
        joined["context_tokens"] = min(contexts)
    joined["capabilities"] = _common([row.get("capabilities", {}) for row in rows])
    return joined


def _dearest_rates(prices: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Decimal]]:
    """Yield the highest price of each kind; a kind that a price leaves out costs as much as its input or output."""
    prices = list(prices)
    for name in RATES:
        if any(price.get(name) is not None for price in prices):
            usual = "output" if name == "reasoning" else "input"
            yield name, max(Decimal(price.get(name) or price[usual]) for price in prices)


def _common(abilities: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """Return what all hosts say; where they differ, the request must name a host that can do it."""
    names = dict.fromkeys(name for able in abilities for name in able)
    return {name: all(able.get(name, False) for able in abilities) for name in names}


def _hosts(row: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the full names and the entries of the hosts that serve a model now."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str) or not isinstance(row.get("providers"), list):
        return
    for host in row["providers"]:
        if isinstance(host, dict) and isinstance(host.get("provider"), str) and host.get("status") in (None, "live"):
            yield f"{row['id']}:{host['provider']}", host


def _model(row: Mapping[str, Any], host: Mapping[str, Any], day: str) -> dict[str, Any]:
    pricing = host.get("pricing")
    if not isinstance(pricing, dict):
        raise PriceError("no price per token")
    rates = {name: amount(name, pricing.get(name)) for name in ("input", "output")}
    model: dict[str, Any] = {"prices": [checked_price({"from": day, **texts(rates)})]}
    context = whole_number(host, "context_length")
    if context is not None:
        model["context_tokens"] = context
    able = {ours: host[theirs] for ours, theirs in _ABILITIES.items() if isinstance(host.get(theirs), bool)}
    architecture = row.get("architecture")
    modalities = architecture.get("input_modalities") if isinstance(architecture, dict) else None
    if isinstance(modalities, list):
        able["vision"] = "image" in modalities
    return {**model, "capabilities": able}
