"""`spillway rentals`: record when GPUs are rented and at which price, put it right, and follow what providers say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from spillway_hardware.gpus import BASE
from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, when
from spillway_router.deploy import TARGETS

if TYPE_CHECKING:
    from typing import Literal

    from spillway_router.config.load import Loaded
    from spillway_router.ledger.records import RentalRecord
    from spillway_router.ledger.rentals.keeper import RentalTerms

rentals_app = typer.Typer(no_args_is_help=True, help="Record GPU rentals: start, stop, correct, watch, list.")

SOURCES = ("cli", *TARGETS)
_KINDS = ("reserved", "interruptible")
AtOption = Annotated[str, typer.Option("--at", help="When, as ISO time (UTC if it names no zone). The default is now.")]


PriceOption = Annotated[str, typer.Option(help="USD per hour of one GPU. The default is gpu.price_per_hour.")]
MonthOption = Annotated[str, typer.Option(help="USD per calendar month of one GPU, in place of --price.")]


@rentals_app.command("start")
def start_rental(
    path: ConfigOption = None,
    gpu: Annotated[str, typer.Option(help=f"What is rented, such as {BASE}. The default is gpu.name.")] = "",
    count: Annotated[int | None, typer.Option(min=1, max=1024, help="How many GPUs. The default is gpu.count.")] = None,
    price: PriceOption = "",
    price_per_month: MonthOption = "",
    kind: Annotated[str, typer.Option(metavar="reserved|interruptible", help="The default is gpu.kind.")] = "",
    source: Annotated[str, typer.Option(help=f"Where it is rented: {', '.join(SOURCES)}.")] = "cli",
    machine: Annotated[
        str, typer.Option(help="The provider's ID of the machine, so that `rentals watch` can follow it.")
    ] = "",
    another: Annotated[bool, typer.Option("--another", help="It is one more GPU of a kind that is recorded.")] = False,
    at: AtOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record that GPUs are rented from now on, or from --at, until `rentals stop`, whether or not a router runs."""
    from spillway_router.ledger.rentals.declared import declare, overlapping

    loaded = load(path)
    prices = _Prices(price, price_per_month)
    terms = replace(_terms(loaded=loaded, gpu=gpu, count=count, prices=prices, kind=kind), machine=machine)
    if source not in SOURCES:
        fail(f"--source {source!r} is not known; use one of {', '.join(SOURCES)}")
    at_ms = _moment(at)
    with opened(loaded) as ledger:
        same = overlapping(ledger, terms, source, at_ms, now_ms())
        if same and not another:
            ids = ", ".join(record.id for record in same)
            fail(f"{ids} already records {_name(same[0])} at that time; pass --another if this is one more GPU")
        record = declare(ledger, terms, source, at_ms, now_ms())
    if as_json:
        typer.echo(json.dumps(_row(record, None), indent=2))
    else:
        say(f"id  {record.id}\nbilled from {when(record.started_ms)} until `spillway rentals stop {record.id}`")


@rentals_app.command("stop")
def stop_rental(
    rental_id: Annotated[str, typer.Argument(help="ID of the rental; --all for every one.")] = "",
    path: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Stop every running rental.")] = False,
    at: AtOption = "",
    as_json: JsonOption = False,
) -> None:
    """Record that GPUs are no longer rented. What is on the books after --at is taken back by correcting rows."""
    from spillway_router.ledger.rentals.declared import end

    if bool(rental_id) == everything:
        fail("name one rental, or pass --all; `spillway rentals list` shows them")
    now, at_ms = now_ms(), _moment(at)
    with opened(load(path), "write") as ledger:
        running = [
            r for r in ledger.rentals.between(0, now + 1) if r.stopped_ms is None and (everything or r.id == rental_id)
        ]
        if not running:
            fail(
                f"no running rental {rental_id}; `spillway rentals list` shows them, and `spillway rentals correct` "
                "puts the end of another one right".replace("  ", " ")
            )
        early = [record for record in running if at_ms < record.started_ms]
        if early:
            fail(f"{early[0].id} began at {when(early[0].started_ms)}; stop it then or later")
        before_nano = _cost(running, now)
        end(ledger, running, at_ms, now)
        if not as_json:
            for record in running:
                say(f"stopped {record.id} at {when(at_ms)}")
        after_nano = _cost([replace(record, stopped_ms=at_ms) for record in running], now)
        if as_json:
            values = [{"id": record.id, "stopped": when(at_ms)} for record in running]
            typer.echo(json.dumps({"stopped": values, **_difference(before_nano, after_nano)}, indent=2))
        else:
            _say_difference(before_nano, after_nano)


@rentals_app.command("correct")
def correct_rental(
    rental_id: Annotated[str, typer.Argument(help="ID of the rental, running or ended.")],
    path: ConfigOption = None,
    start: Annotated[str, typer.Option("--from", help="When it really began, as ISO time.")] = "",
    until: Annotated[str, typer.Option("--until", help="When it really ended, as ISO time.")] = "",
    count: Annotated[int | None, typer.Option(min=1, max=1024, help="How many GPUs it really had.")] = None,
    price: Annotated[str, typer.Option(help="What one GPU really cost in USD per hour.")] = "",
    price_per_month: Annotated[str, typer.Option(help="What one GPU really cost in USD per calendar month.")] = "",
    void: Annotated[bool, typer.Option("--void", help="Nothing was rented: take it back whole.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the difference and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put right what was recorded of a rental: the books of the days concerned get correcting rows."""
    from spillway_router.ledger.rentals.declared import correct

    if not (start or until or count or price or price_per_month or void):
        fail("say what is right: --from, --until, --price, --price-per-month, --count or --void")
    now = now_ms()
    with opened(load(path), "read" if dry_run else "write") as ledger:
        record = next((r for r in ledger.rentals.between(0, now + 1) if r.id == rental_id), None)
        if record is None:
            fail(f"no rental {rental_id}; `spillway rentals list` shows them")
        right = _priced(record, _Prices(price, price_per_month), count)
        begin_ms = _moment(start) if start else record.started_ms
        end_ms = begin_ms if void else _moment(until) if until else record.stopped_ms
        if end_ms is not None and end_ms < begin_ms:
            fail(f"the rental would end at {when(end_ms)}, before it begins at {when(begin_ms)}")
        right = replace(right, started_ms=begin_ms, stopped_ms=end_ms)
        before_nano, after_nano = _cost([record], now), _cost([right], now)
        if not dry_run:
            right = correct(ledger, record, right, now)
            taken = "" if right.id == record.id else f"; {right.id} takes its place"
            if not as_json:
                say(f"corrected {record.id}{taken}")
    if as_json:
        values = {"id": record.id, "right_id": right.id, "dry_run": dry_run, **_difference(before_nano, after_nano)}
        typer.echo(json.dumps(values, indent=2))
    else:
        _say_difference(before_nano, after_nano)


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
def list_rentals(path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List all rentals, oldest first, with what they have cost."""
    from spillway_router.core.money.currency import Amounts

    now = now_ms()
    with opened(load(path), "read") as ledger:
        records = ledger.rentals.between(0, now + 1)
    if as_json:
        typer.echo(json.dumps([_row(record, _cost([record], now)) for record in records], indent=2))
        return
    if not records:
        typer.echo(
            "no rentals; until one is declared, the router bills its own uptime: spillway rentals start", err=True
        )
        return
    typer.echo(f"{'id':21}  {'source':7}  {'kind':13}  GPUs at their price  from and to  cost  machine")
    for record in records:
        row = _row(record, None)
        until = "running" if record.stopped_ms is None else f"to {row['stopped']}"
        words = (record.id, f"{record.source:7}", f"{record.kind:13}", _name(record), f"{row['started']} {until}")
        so_far = " so far" if record.stopped_ms is None else ""
        machine = (f"machine {record.machine}",) if record.machine else ()
        typer.echo("  ".join((*words, f"{Amounts().money(_cost([record], now))}{so_far}", *machine)))


@dataclass(frozen=True, slots=True)
class _Prices:
    """The prices of one GPU as typed, empty if not given."""

    per_hour: str = ""
    per_month: str = ""

    def amount(self) -> Decimal | None:
        """Return the price that was typed, None without one. A text that is no price ends the command."""
        if self.per_hour and self.per_month:
            fail("give --price or --price-per-month, not both")
        text, option = (self.per_month, "--price-per-month") if self.per_month else (self.per_hour, "--price")
        if not text:
            return None
        try:
            amount = Decimal(text)
        except InvalidOperation:
            fail(f"{option} {text!r} is not an amount; write USD, such as 1.39")
        if not amount.is_finite() or not 0 < amount <= 10**6:
            fail(f"{option} must be above 0 and at most 1,000,000 USD")
        return amount


def _terms(loaded: Loaded, gpu: str, count: int | None, prices: _Prices, kind: str) -> RentalTerms:
    from spillway_router.config.costs import gpu_terms

    terms = gpu_terms(loaded.settings)
    chosen = kind or terms.kind
    if chosen not in _KINDS:
        fail(f"--kind {kind!r} is not known; use reserved or interruptible")
    amount = prices.amount()
    if amount is None and not loaded.settings.gpu.price_known:
        fail("give the price of one GPU in USD: --price 1.39 per hour or --price-per-month 250, or set it under gpu")
    if amount is not None:
        hour_nano, month_nano = _price_nano(prices, amount, loaded.settings.gpu.hours_per_month)
        terms = replace(terms, price_nano_per_hour=hour_nano, price_nano_per_month=month_nano)
    kind_of = cast('Literal["reserved", "interruptible"]', chosen)
    return replace(terms, gpu=gpu or terms.gpu, count=count or terms.count, kind=kind_of, machine="")


def _price_nano(prices: _Prices, amount: Decimal, hours_per_month: Decimal) -> tuple[int, int | None]:
    """Return the nano-dollars of one GPU per hour, and per month where it is priced so."""
    from spillway_router.core.money.tariff import NANO

    if prices.per_month:
        return int(amount / hours_per_month * NANO), int(amount * NANO)
    return int(amount * NANO), None


def _priced(record: RentalRecord, prices: _Prices, count: int | None) -> RentalRecord:
    from spillway_router.config.settings import HOURS_PER_MONTH

    amount = prices.amount()
    if amount is not None:
        hour_nano, month_nano = _price_nano(prices, amount, Decimal(HOURS_PER_MONTH))
        record = replace(
            record, price_nano_per_hour=hour_nano, price_nano_per_month=month_nano, whole_nano_per_hour=None
        )
    if count is not None and count != record.count:
        record = replace(record, count=count, whole_nano_per_hour=None)
    return record


def _cost(records: Sequence[RentalRecord], now: int) -> int:
    from spillway_router.ledger.rentals.books import accrues_until, billed_nano

    def end(record: RentalRecord) -> int:
        return accrues_until(record, now) if record.stopped_ms is None else record.stopped_ms

    return sum(billed_nano(record, record.started_ms, max(record.started_ms, end(record))) for record in records)


def _difference(before_nano: int, after_nano: int) -> dict[str, str]:
    from spillway_router.core.money.tariff import usd

    return {"cost_before_usd": usd(before_nano), "cost_usd": usd(after_nano)}


def _say_difference(before_nano: int, after_nano: int) -> None:
    from spillway_router.core.money.currency import Amounts

    money = Amounts().money
    if before_nano != after_nano:
        say(f"cost    {money(before_nano)} -> {money(after_nano)} ({money(after_nano - before_nano)})")


def _name(record: RentalRecord) -> str:
    from spillway_router.core.money.currency import Amounts

    price = f"{Amounts().money(record.price_nano_per_hour)}/h"
    if record.price_nano_per_month is not None:
        price = f"{Amounts().money(record.price_nano_per_month)}/month"
    return f"{record.count} x {record.gpu or 'GPU'} at {price}"


def _row(record: RentalRecord, cost_nano: int | None) -> dict[str, Any]:
    from spillway_router.core.money.tariff import usd

    month_nano = record.price_nano_per_month
    row: dict[str, Any] = {
        "id": record.id,
        "gpu": record.gpu,
        "count": record.count,
        "price_per_hour_usd": usd(record.price_nano_per_hour),
        "price_per_month_usd": None if month_nano is None else usd(month_nano),
        "kind": record.kind,
        "source": record.source,
        "machine": record.machine,
        "started": when(record.started_ms),
        "stopped": None if record.stopped_ms is None else when(record.stopped_ms),
        "seen": None if record.seen_ms is None else when(record.seen_ms),
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
