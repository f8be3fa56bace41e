"""`/v1/rentals` and `/admin/rentals`: what rented GPUs cost, and an administrator who starts, stops and corrects
rentals over HTTP, in the words of the command line (ledger/rentals/desk.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field

from spillway_router.core.routing.model import Caller, Refusal
from spillway_router.ledger.calls import LEDGER_CALLS
from spillway_router.ledger.interface import Ledger
from spillway_router.ledger.rentals.desk import (
    RentalCorrection,
    RentalDefaults,
    RentalDesk,
    RentalDeskError,
    RentalStart,
    UnknownRentalError,
)
from spillway_router.proxy.control.requests import caller_of, form_of
from spillway_router.proxy.exchange.services import Services
from spillway_router.proxy.request.auth import ADMIN_ROLES, USAGE_ROLES
from spillway_router.proxy.request.errors import RefusedError, bad_request

_T = TypeVar("_T")
BOOKING_S = 50.0
"""A correction of a long rental writes a row for each of its quarters of an hour."""
Word = Annotated[str, Field(max_length=100)]
GpuCount = Annotated[int, Field(ge=1, le=1024)]


class StartForm(BaseModel):
    """A rental to record; what is left out is as configured."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gpu: Word = ""
    count: GpuCount | None = None
    price: Word = ""
    price_per_month: Word = ""
    kind: Literal["", "reserved", "interruptible"] = ""
    source: Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,19}$")] = "cli"
    machine: Annotated[str, Field(max_length=200)] = ""
    another: bool = False
    at: Word = ""


class StopForm(BaseModel):
    """When rentals ended; now, if left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    at: Word = ""


class CorrectionForm(BaseModel):
    """What is right of a rental; what is left out was right before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: Annotated[str, Field(alias="from", max_length=100)] = ""
    until: Word = ""
    count: GpuCount | None = None
    price: Word = ""
    price_per_month: Word = ""
    void: bool = False
    dry_run: bool = False


def add_rental_routes(api: FastAPI, services: Services, ledger: Ledger, defaults: Callable[[], RentalDefaults]) -> None:
    """Add `/v1/rentals` and `/admin/rentals`. `defaults` returns the terms of the configuration in force."""

    async def at_desk(caller: Caller, work: Callable[[RentalDesk], _T]) -> _T:
        """Run what is asked of the rentals on a thread of the ledger. Raise RefusedError for what can't be done."""
        desk = RentalDesk(ledger, defaults(), int(services.wall() * 1000), f"key {caller.key_id}")
        try:
            return await LEDGER_CALLS.run(work, desk, limit_s=BOOKING_S)
        except UnknownRentalError as error:
            raise RefusedError(Refusal(404, "rental_not_found", f"{error}.")) from None
        except RentalDeskError as error:
            raise bad_request(f"{error}.", error.term or None) from None

    @api.get("/v1/rentals")
    async def list_rentals(request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, USAGE_ROLES)
        return {"rentals": await at_desk(caller, RentalDesk.rentals)}

    @api.post("/admin/rentals", status_code=201)
    async def start_rental(request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        asked = RentalStart(**(await form_of(StartForm, services, request, caller)).model_dump())
        return await at_desk(caller, lambda desk: desk.start(asked))

    @api.post("/admin/rentals/{rental_id}/stop")
    async def stop_rental(rental_id: str, request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        form = await form_of(StopForm, services, request, caller)
        return await at_desk(caller, lambda desk: desk.stop(rental_id, form.at))

    @api.patch("/admin/rentals/{rental_id}")
    async def correct_rental(rental_id: str, request: Request) -> dict[str, Any]:
        caller = caller_of(services, request, ADMIN_ROLES)
        asked = RentalCorrection(**(await form_of(CorrectionForm, services, request, caller)).model_dump())
        return await at_desk(caller, lambda desk: desk.correct(rental_id, asked))
