"""`spillway rentals`: record when GPUs are rented and at which price, put it right, and follow what providers say."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from spillway_hardware.gpus import BASE
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, say
from spillway_router.commands.option_groups import takes
from spillway_router.commands.rental_book import rental_book
from spillway_router.commands.requests import shown_usd
from spillway_router.commands.running_router import LedgerOrRouter
from spillway_router.core.money.tariff import TariffError, amount_of
from spillway_router.deploy import TARGETS

rentals_app = typer.Typer(no_args_is_help=True, help="Record GPU rentals: start, stop, correct, watch, list.")

SOURCES = ("cli", *TARGETS)
AtOption = Annotated[str, typer.Option("--at", help="When, as ISO time (UTC if it names no zone). The default is now.")]
PriceOption = Annotated[str | None, typer.Option(help="USD per hour of one GPU. The default is gpu.price_per_hour.")]
MonthOption = Annotated[str | None, typer.Option(help="USD per calendar month of one GPU, in place of --price.")]
RightPriceOption = Annotated[str | None, typer.Option(help="What one GPU really cost in USD per hour.")]
RightMonthOption = Annotated[str | None, typer.Option(help="What one GPU really cost in USD per calendar month.")]
StartCountOption = Annotated[int | None, typer.Option(min=1, max=1024, help="How many GPUs. The default is gpu.count.")]
RightCountOption = Annotated[int | None, typer.Option(min=1, max=1024, help="How many GPUs it really had.")]


@dataclass(frozen=True, slots=True)
class Rented:
    """What is rented, as options; what is empty is as configured."""

    gpu: Annotated[str, typer.Option(help=f"What is rented, such as {BASE}. The default is gpu.name.")] = ""
    count: StartCountOption = None
    price: PriceOption = None
    price_per_month: MonthOption = None
    kind: Annotated[str, typer.Option(metavar="reserved|interruptible", help="The default is gpu.kind.")] = ""
    source: Annotated[str, typer.Option(help=f"Where it is rented: {', '.join(SOURCES)}.")] = "cli"
    machine: Annotated[
        str, typer.Option(help="The provider's ID of the machine, so that `rentals watch` can follow it.")
    ] = ""
    another: Annotated[bool, typer.Option("--another", help="It is one more GPU of a kind that is recorded.")] = False
    at: AtOption = ""


@dataclass(frozen=True, slots=True)
class Right:
    """What is right of a rental, as options; what is empty was right before."""

    start: Annotated[str, typer.Option("--from", help="When it really began, as ISO time.")] = ""
    until: Annotated[str, typer.Option("--until", help="When it really ended, as ISO time.")] = ""
    count: RightCountOption = None
    price: RightPriceOption = None
    price_per_month: RightMonthOption = None
    void: Annotated[bool, typer.Option("--void", help="Nothing was rented: take it back whole.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the difference and change nothing.")] = False


def _terms(options: Rented | Right) -> dict[str, Any]:
    """Return the options as the ledger takes them. A price that is given and empty ends the command."""
    terms = asdict(options)
    for name in ("price", "price_per_month"):
        try:
            terms[name] = "" if terms[name] is None else f"{amount_of(terms[name]):f}"
        except TariffError as error:
            fail(f"--{name.replace('_', '-')} {error}")
    return terms


@rentals_app.command("start")
@takes("place", LedgerOrRouter)
@takes("rented", Rented)
def start_rental(rented: Rented, place: LedgerOrRouter) -> None:
    """Record that GPUs are rented from now on, or from --at, until `rentals stop`, whether or not a router runs."""
    from spillway_router.ledger.rentals.desk import RentalStart

    if rented.source not in SOURCES:
        fail(f"--source {rented.source!r} is not known; use one of {', '.join(SOURCES)}")
    asked = RentalStart(**_terms(rented))
    with rental_book(place, "create") as book:
        row = book.start(asked)
    place.answer(row, f"id  {row['id']}\nbilled from {row['started']} until `spillway rentals stop {row['id']}`")


@rentals_app.command("stop")
@takes("place", LedgerOrRouter)
def stop_rental(
    place: LedgerOrRouter,
    rental_id: Annotated[str, typer.Argument(help="ID of the rental; --all for every one.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Stop every running rental.")] = False,
    at: AtOption = "",
) -> None:
    """Record that GPUs are no longer rented. What is on the books after --at is taken back by correcting rows."""
    from spillway_router.ledger.rentals.desk import ALL

    if bool(rental_id) == everything:
        fail("name one rental, or pass --all; `spillway rentals list` shows them")
    with rental_book(place, "write") as book:
        values = book.stop(ALL if everything else rental_id, at)
    if place.as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    for one in values["stopped"]:
        say(f"stopped {one['id']} at {one['stopped']}")
    _say_difference(values)


@rentals_app.command("correct")
@takes("place", LedgerOrRouter)
@takes("right", Right)
def correct_rental(
    rental_id: Annotated[str, typer.Argument(help="ID of the rental, running or ended.")],
    right: Right,
    place: LedgerOrRouter,
) -> None:
    """Put right what was recorded of a rental: the books of the days concerned get correcting rows."""
    from spillway_router.ledger.rentals.desk import RentalCorrection

    if right == Right():
        fail("say what is right: --from, --until, --price, --price-per-month, --count or --void")
    correction = RentalCorrection(**_terms(right))
    with rental_book(place, "read" if right.dry_run else "write") as book:
        values = book.correct(rental_id, correction)
    if place.as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    if not right.dry_run:
        taken = "" if values["right_id"] == values["id"] else f"; {values['right_id']} takes its place"
        say(f"corrected {values['id']}{taken}")
    _say_difference(values)


@rentals_app.command("watch")
def watch_rentals(
    path: ConfigOption = None,
    every: Annotated[
        float, typer.Option("--every", min=0, help="Ask again about every so many seconds; 0 asks once.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Ask the providers of rented machines whether they run and what they cost, and let the books follow."""
    from spillway_router.commands.rental_watch import RentalWatch

    watch = RentalWatch(load(path))
    while True:
        outcome = watch.look()
        if as_json:
            typer.echo(json.dumps({"changes": [asdict(c) for c in outcome.changes], "errors": list(outcome.errors)}))
        else:
            for line in outcome.lines():
                typer.echo(line)
        if not every:
            if outcome.errors:
                raise typer.Exit(1)
            return
        watch.wait(every)


@rentals_app.command("list")
@takes("place", LedgerOrRouter)
def list_rentals(place: LedgerOrRouter) -> None:
    """List all rentals, oldest first, with what they have cost."""
    from spillway_router.ledger.rentals.desk import rented

    with rental_book(place, "read") as book:
        rows = book.rentals()
    if place.as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo(
            "no rentals; until one is declared, the router bills its own uptime: spillway rentals start", err=True
        )
        return
    typer.echo(f"{'id':21}  {'source':7}  {'kind':13}  GPUs at their price  from and to  cost  machine")
    for row in rows:
        until, so_far = ("running", " so far") if row["stopped"] is None else (f"to {row['stopped']}", "")
        words = (row["id"], f"{row['source']:7}", f"{row['kind']:13}", rented(row), f"{row['started']} {until}")
        machine = (f"machine {row['machine']}",) if row["machine"] else ()
        say("  ".join((*words, f"{shown_usd(row['cost_usd'])}{so_far}", *machine)))


def _say_difference(values: dict[str, Any]) -> None:
    from spillway_router.core.money.currency import Amounts
    from spillway_router.core.money.tariff import nano_from_usd

    money = Amounts().money
    before_nano, after_nano = nano_from_usd(values["cost_before_usd"]), nano_from_usd(values["cost_usd"])
    if before_nano != after_nano:
        say(f"cost    {money(before_nano)} -> {money(after_nano)} ({money(after_nano - before_nano)})")
