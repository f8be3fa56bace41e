"""`spillway rentals`: record when GPUs are rented, and at which price."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_hardware.gpus import BASE
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, when
from spillway_router.deploy import TARGETS

if TYPE_CHECKING:
    from typing import Literal

    from spillway_router.config.load import Loaded
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.records import RentalRecord
    from spillway_router.ledger.rentals.keeper import RentalTerms

rentals_app = typer.Typer(no_args_is_help=True, help="Record GPU rentals: start, stop, list.")

SOURCES = ("cli", *TARGETS)
_KINDS = ("reserved", "interruptible")
AtOption = Annotated[str, typer.Option("--at", help="When, as ISO time (UTC if it names no zone). The default is now.")]


@rentals_app.command("start")
def start_rental(
    path: ConfigOption = None,
    gpu: Annotated[str, typer.Option(help=f"What is rented, such as {BASE}. The default is gpu.name.")] = "",
    count: Annotated[int | None, typer.Option(min=1, max=1024, help="How many GPUs. The default is gpu.count.")] = None,
    price: Annotated[str, typer.Option(help="USD per hour of one GPU. The default is gpu.price_per_hour.")] = "",
    kind: Annotated[str, typer.Option(help="reserved or interruptible. The default is gpu.kind.")] = "",
    source: Annotated[str, typer.Option(help=f"Where it is rented: {', '.join(SOURCES)}.")] = "cli",
    at: AtOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record that GPUs are rented from now on until `rentals stop`, whether or not a router runs."""
    loaded = load(path)
    terms = _terms(loaded=loaded, gpu=gpu, count=count, price=price, kind=kind)
    if source not in SOURCES:
        fail(f"--source {source!r} is not known; use one of {', '.join(SOURCES)}")
    with opened(loaded) as ledger:
        record = declare(ledger, terms, source, _moment(at))
    if as_json:
        typer.echo(json.dumps(_row(record, None), indent=2))
    else:
        typer.echo(f"id  {record.id}\nbilled from {when(record.started_ms)} until `spillway rentals stop {record.id}`")


@rentals_app.command("stop")
def stop_rental(
    rental_id: Annotated[str, typer.Argument(help="ID of the rental; --all for every one.")] = "",
    path: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop every running rental.")] = False,
    at: AtOption = "",
) -> None:
    """Record that GPUs are no longer rented."""
    if bool(rental_id) == everything:
        fail("name one rental, or pass --all; `spillway rentals list` shows them")
    now, at_ms = now_ms(), _moment(at)
    with opened(load(path), "write") as ledger:
        running = [
            r for r in ledger.rentals.between(0, now + 1) if r.stopped_ms is None and (everything or r.id == rental_id)
        ]
        if not running:
            fail(f"no running rental {rental_id}; `spillway rentals list` shows them".replace("  ", " "))
        end(ledger, running, at_ms, now)


@rentals_app.command("list")
def list_rentals(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all rentals, oldest first, with what they have cost."""
    from spillway_router.core.money.tariff import usd
    from spillway_router.ledger.rentals.books import billed_nano

    now = now_ms()
    with opened(load(path), "read") as ledger:
        records = ledger.rentals.between(0, now + 1)
    costs = [billed_nano(r, r.started_ms, now if r.stopped_ms is None else r.stopped_ms) for r in records]
    if as_json:
        typer.echo(json.dumps([_row(r, cost) for r, cost in zip(records, costs, strict=True)], indent=2))
        return
    for record, cost in zip(records, costs, strict=True):
        row = _row(record, cost)
        rented = f"{record.count} x {record.gpu or 'GPU'} at {row['price_per_hour_usd']} USD/h"
        until = "running" if record.stopped_ms is None else f"to {row['stopped']}"
        words = (record.id, f"{record.source:7}", f"{record.kind:13}", rented, f"{row['started']} {until}")
        typer.echo("  ".join((*words, f"{usd(cost)} USD so far")))


def _terms(loaded: Loaded, gpu: str, count: int | None, price: str, kind: str) -> RentalTerms:
    from spillway_router.core.money.tariff import NANO
    from spillway_router.ledger.rentals.keeper import RentalTerms

    part = loaded.settings.gpu
    try:
        amount = Decimal(price) if price else part.price_per_hour
    except InvalidOperation:
        fail(f"--price {price!r} is not an amount; write USD per hour, such as 1.39")
    if not amount.is_finite() or not 0 < amount <= 10**6:
        fail("give the price of one GPU in USD per hour, above 0: --price 1.39, or set gpu.price_per_hour")
    chosen = kind or part.kind
    if chosen not in _KINDS:
        fail(f"--kind {kind!r} is not known; use reserved or interruptible")
    terms = cast('Literal["reserved", "interruptible"]', chosen)
    return RentalTerms(gpu or part.name or "", count or part.count, int(amount * NANO), terms)


def declare(ledger: Ledger, terms: RentalTerms, source: str, at_ms: int) -> RentalRecord:
    """Record the start of a rental, and end the rentals that routers started by themselves."""
    from spillway_router.ledger.ids import new_rental_id
    from spillway_router.ledger.rentals.books import booked
    from spillway_router.ledger.rentals.closed_days import is_closed
    from spillway_router.ledger.rentals.keeper import ROUTER, supersede

    if is_closed(ledger, at_ms):
        fail(f"the books of {when(at_ms)[:10]} are closed; start the rental on a later day")
    automatic = [r for r in ledger.rentals.between(0, now_ms() + 1) if r.source == ROUTER]
    ends_ms = (booked(ledger, r).until_ms if r.stopped_ms is None else r.stopped_ms for r in automatic)
    billed_until_ms = max(ends_ms, default=0)
    if at_ms < billed_until_ms:
        fail(f"a router has billed its own GPU time until {when(billed_until_ms)}; start the rental then or later")
    record = terms.open_rental(new_rental_id(), at_ms, source)
    ledger.rentals.add(record)
    supersede(ledger, ledger.rentals.between(0, now_ms() + 1))
    return record


def end(ledger: Ledger, running: Sequence[RentalRecord], at_ms: int, now: int) -> None:
    """Record the end of rentals. A moment before what is billed already ends the command."""
    from spillway_router.ledger.rentals.books import RentalBooks, booked

    for record in running:
        billed_until_ms = max(record.started_ms, booked(ledger, record).until_ms)
        if at_ms < billed_until_ms:
            fail(f"{record.id} is already billed until {when(billed_until_ms)}; stop it then or later")
    for record in running:
        ledger.rentals.stop(record.id, at_ms)
        typer.echo(f"stopped {record.id} at {when(at_ms)}")
    RentalBooks(ledger).write_due(now)


def _row(record: RentalRecord, cost_nano: int | None) -> dict[str, Any]:
    from spillway_router.core.money.tariff import usd

    row: dict[str, Any] = {
        "id": record.id,
        "gpu": record.gpu,
        "count": record.count,
        "price_per_hour_usd": usd(record.price_nano_per_hour),
        "kind": record.kind,
        "source": record.source,
        "started": when(record.started_ms),
        "stopped": None if record.stopped_ms is None else when(record.stopped_ms),
    }
    return row if cost_nano is None else {**row, "cost_usd": usd(cost_nano), "cost_nano": cost_nano}


def _moment(text: str) -> int:
    """Return the epoch milliseconds of an ISO time, or of now if the text is empty."""
    now = now_ms()
    if not text:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--at {text!r} is not a time; write it as 2026-11-20T14:00Z")
    at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > now:
        fail(f"--at {text} is in the future; record it when it happens")
    return at_ms
