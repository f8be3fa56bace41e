"""`spillway rentals`: when GPUs are rented, and at which price."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, when

if TYPE_CHECKING:
    from typing import Literal

    from spillway_router.config.load import Loaded
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.records import RentalRecord
    from spillway_router.ledger.rentals.keeper import RentalTerms

rentals_app = typer.Typer(no_args_is_help=True, help="GPU rentals: start, stop, list.")

SOURCES = ("cli", "runpod", "vast", "aws", "kubernetes")
_KINDS = ("reserved", "interruptible")
AtOption = Annotated[str, typer.Option("--at", help="When, as ISO time (UTC if it names no zone); now if left out.")]


@rentals_app.command("start")
def start_rental(
    path: ConfigOption = None,
    gpu: Annotated[str, typer.Option(help="What is rented, such as a100-80; gpu.name of the configuration.")] = "",
    count: Annotated[int | None, typer.Option(min=1, max=1024, help="How many; gpu.count.")] = None,
    price: Annotated[str, typer.Option(help="USD per hour of one; gpu.price_per_hour of the configuration.")] = "",
    kind: Annotated[str, typer.Option(help="reserved or interruptible; gpu.kind of the configuration.")] = "",
    source: Annotated[str, typer.Option(help="Where it is rented: cli, runpod, vast, aws or kubernetes.")] = "cli",
    at: AtOption = "",
    as_json: JsonOption = False,
) -> None:
    """GPUs are rented from now on, until they are declared stopped, whether or not a router runs."""
    loaded = load(path)
    terms = _terms(loaded, gpu, count, price, kind)
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
    rental_id: Annotated[str, typer.Argument(help="Id of the rental; --all for every one.")] = "",
    path: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop every rental that runs.")] = False,
    at: AtOption = "",
) -> None:
    """GPUs are no longer rented."""
    if bool(rental_id) == everything:
        fail("name one rental, or --all; `spillway rentals list` shows them")
    now, at_ms = now_ms(), _moment(at)
    with opened(load(path)) as ledger:
        running = [r for r in ledger.rentals(0, now + 1) if r.stopped_ms is None and (everything or r.id == rental_id)]
        if not running:
            fail(f"no running rental {rental_id}; `spillway rentals list` shows them".replace("  ", " "))
        end(ledger, running, at_ms, now)


@rentals_app.command("list")
def list_rentals(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """All rentals, oldest first, with what they have cost."""
    from spillway_router.core.money.tariff import usd
    from spillway_router.ledger.rentals.books import cost_nano

    now = now_ms()
    with opened(load(path)) as ledger:
        records = ledger.rentals(0, now + 1)
    costs = [cost_nano(r, r.started_ms, now if r.stopped_ms is None else r.stopped_ms) for r in records]
    if as_json:
        typer.echo(json.dumps([_row(r, cost) for r, cost in zip(records, costs, strict=True)], indent=2))
        return
    for record, cost in zip(records, costs, strict=True):
        row = _row(record, cost)
        what = f"{record.count} x {record.gpu or 'GPU'} at {row['price_per_hour_usd']} USD/h"
        until = "runs" if record.stopped_ms is None else f"to {row['stopped']}"
        words = (record.id, f"{record.source:7}", f"{record.kind:13}", what, f"{row['started']} {until}")
        typer.echo("  ".join((*words, f"{usd(cost)} USD so far")))


def _terms(loaded: Loaded, gpu: str, count: int | None, price: str, kind: str) -> RentalTerms:
    from spillway_router.core.money.tariff import NANO
    from spillway_router.ledger.rentals.keeper import RentalTerms

    part = loaded.settings.gpu
    try:
        amount = Decimal(price) if price else part.price_per_hour
    except InvalidOperation:
        fail(f"--price {price!r} is not an amount; write USD per hour like 1.39")
    if not amount.is_finite() or not 0 < amount <= 10**6:
        fail("give the price of one GPU in USD per hour, above 0: --price 1.39, or gpu.price_per_hour")
    chosen = kind or part.kind
    if chosen not in _KINDS:
        fail(f"--kind {kind!r} is not known; use reserved or interruptible")
    terms = cast('Literal["reserved", "interruptible"]', chosen)
    return RentalTerms(gpu or part.name or "", count or part.count, int(amount * NANO), terms)


def declare(ledger: Ledger, terms: RentalTerms, source: str, at_ms: int) -> RentalRecord:
    """Put the start of a rental on the books, and end those that routers opened by themselves."""
    from spillway_router.ledger.records import RentalRecord
    from spillway_router.ledger.rentals.books import written
    from spillway_router.ledger.rentals.closed_days import is_closed
    from spillway_router.ledger.rentals.keeper import ROUTER, supersede
    from spillway_router.runtime.gpu_billing import new_rental_id

    if is_closed(ledger, at_ms):
        fail(f"the books of {when(at_ms)[:10]} are closed; start it at a later day")
    own = [r for r in ledger.rentals(0, now_ms() + 1) if r.source == ROUTER]
    billed = max((written(ledger, r).until_ms if r.stopped_ms is None else r.stopped_ms for r in own), default=0)
    if at_ms < billed:
        fail(f"a router has billed its own GPU time until {when(billed)}; start it then or later")
    record = RentalRecord(
        new_rental_id(), terms.gpu, terms.count, terms.price_nano_per_hour, terms.kind, at_ms, None, source
    )
    ledger.add_rental(record)
    supersede(ledger, ledger.rentals(0, now_ms() + 1))
    return record


def end(ledger: Ledger, running: Sequence[RentalRecord], at_ms: int, now: int) -> None:
    """Put the end of rentals on the books; a moment before what is billed already ends the command."""
    from spillway_router.ledger.rentals.books import RentalBooks, written

    for record in running:
        least = max(record.started_ms, written(ledger, record).until_ms)
        if at_ms < least:
            fail(f"{record.id} is on the books until {when(least)} already; stop it then or later")
    for record in running:
        ledger.stop_rental(record.id, at_ms)
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
    """Epoch milliseconds of an ISO time; now where there is none."""
    now = now_ms()
    if not text:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        fail(f"--at {text!r} is not a time; write it like 2026-11-20T14:00Z")
    at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > now:
        fail(f"--at {text} is in the future; declare it when it happens")
    return at_ms
