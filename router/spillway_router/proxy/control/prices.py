"""`GET /v1/prices`: what the models cost on a day, by the lists that the router charges by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request

from spillway_router.prices.listing import PriceListing
from spillway_router.prices.rows import PriceError
from spillway_router.proxy.control.requests import caller_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import USAGE_ROLES
from spillway_router.proxy.request.errors import bad_request

ListPrices = Callable[[str | None, date], PriceListing]
"""Return the prices of a provider, None for all, on a day. Raises PriceError."""
_PARAMETERS = frozenset({"provider", "on"})


def add_price_routes(api: FastAPI, services: Services, listed: ListPrices) -> None:
    """Add `GET /v1/prices`."""
    one_at_a_time = asyncio.Lock()

    @api.get("/v1/prices")
    async def list_prices(
        request: Request, provider: Annotated[str | None, Query()] = None, on: Annotated[str | None, Query()] = None
    ) -> dict[str, Any]:
        caller_of(services, request, USAGE_ROLES)
        unknown = sorted(set(request.query_params) - _PARAMETERS)
        if unknown:
            raise bad_request(f"{unknown[0]} is unknown; use {', '.join(sorted(_PARAMETERS))}.", unknown[0])
        day = _day(on, datetime.fromtimestamp(services.wall(), UTC).date())
        try:
            async with one_at_a_time:  # it takes a core for 0.2 s, which requests need, too
                listing = await asyncio.to_thread(listed, provider, day)
        except PriceError as error:
            raise bad_request(f"{error}.") from None
        if provider is not None and not listing.models:
            raise bad_request(f"No prices of {provider[:80]!r} are known; leave provider out for all.", "provider")
        return listing.values()


def _day(text: str | None, today: date) -> date:
    if text is None:
        return today
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise bad_request(f"on is {text[:40]!r}, which is no day; write it as 2026-11-20.", "on") from None
