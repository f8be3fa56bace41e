"""A configured price and the tariff that it becomes have the same fields."""

from __future__ import annotations

from dataclasses import fields
from datetime import date
from decimal import Decimal
from typing import Any

from spillway_router.config.settings import PricePart, StepPart
from spillway_router.core.money.tariff import MEDIA, Tariff

SET_BY_THE_ROUTER = {"source"}
"""The router itself marks the tariff as configured."""
MEDIA_PRICES = {f"{name}_per_million" for name in MEDIA}
"""The tariff has them together, as `media`."""
NO_PRICE = {"checked_on", "retired_on"}
"""When the price was checked, and when the model is withdrawn: these only give warnings at `spillway check`."""


def given() -> dict[str, Any]:
    """Return a different value for every field of PricePart, none of which is the default of the tariff."""
    prices = {
        name: Decimal(place)
        for place, name in enumerate(PricePart.model_fields, 1)
        if name not in {"steps", "fees", "valid_from", "valid_until", *NO_PRICE}
    }
    step = StepPart(input_per_million=Decimal(50), output_per_million=Decimal(60), above_tokens=1000)
    days = {"valid_from": date(2026, 1, 2), "valid_until": date(2026, 3, 4)}
    fees = {"web_search": Decimal("0.01")}
    return {
        **prices,
        **days,
        "steps": (step,),
        "fees": fees,
        "checked_on": date(2026, 1, 3),
        "retired_on": date(2026, 5, 6),
    }


def test_a_tariff_takes_every_price_from_the_configuration() -> None:
    price = given()
    tariff = PricePart(**price).tariff()
    steps, days = {"steps", "fees"}, {"valid_from", "valid_until"}
    assert dict(tariff.media) == {name: price[f"{name}_per_million"] for name in MEDIA}
    assert tariff.fees == (("web_search", Decimal("0.01")),)
    for name in price.keys() - NO_PRICE - MEDIA_PRICES - steps - days:
        assert getattr(tariff, name) == price[name], name
    assert {name: getattr(tariff, name) for name in days} == {"valid_from": "2026-01-02", "valid_until": "2026-03-04"}
    assert [(step.above_tokens, step.rates.input) for step in tariff.steps] == [(1000, Decimal(50))]


def test_both_have_the_same_fields() -> None:
    tariff = {part.name for part in fields(Tariff) if part.init}
    assert tariff - SET_BY_THE_ROUTER - {"media"} == set(PricePart.model_fields) - NO_PRICE - MEDIA_PRICES
    assert set(given()) == set(PricePart.model_fields)
