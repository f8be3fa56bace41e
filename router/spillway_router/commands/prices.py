"""`spillway prices`: what the cloud models cost, what changed, and taking in a newer price list."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load

if TYPE_CHECKING:
    from spillway_router.core.money.tariff import Rates, Tariff
    from spillway_router.prices.book import PriceBook
    from spillway_router.prices.changes import Change
    from spillway_router.prices.imported import Source
    from spillway_router.prices.rows import ModelRecord

prices_app = typer.Typer(no_args_is_help=True, help="Prices of the cloud models: show, compare, take in.")

ProviderOption = Annotated[str | None, typer.Option(help="Only this provider.")]
FileArgument = Annotated[
    Path, typer.Argument(help="LiteLLM's model_prices_and_context_window.json, or a price list of Spillway.")
]
DayOption = Annotated[str | None, typer.Option(metavar="DATE", help="Day, like 2026-11-20; today if left out.")]
RATES = ("input", "output", "cached_input", "cache_write", "cache_write_long", "reasoning")
_HEADINGS = ("input", "output", "cached", "write", "write 1h", "reasoning")


@prices_app.command("list")
def list_prices(
    provider: ProviderOption = None, on: DayOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """USD per million tokens of every model on a day, with the day each price began and was last checked."""
    from spillway_router.prices.book import priced
    from spillway_router.providers.interface import ProviderError

    settings = load(config).settings
    day = _day(on)
    try:
        book = _book(settings.price_file)
        found = list(priced(book, day, (provider,) if provider else ()))
    except ProviderError as error:
        fail(str(error))
    if not found:
        fail(f"no prices for {provider!r}; without --provider all are shown")
    rows = [_row(*one, day, settings.prices.stale_after_days) for one in found]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"Prices on {day} in USD per million tokens")
    typer.echo(" " * 60 + "".join(f" {name:>9}" for name in _HEADINGS))
    for row in rows:
        for line in _lines(row):
            typer.echo(line)
    stale = sum(row["stale"] for row in rows)
    if stale:
        limit = settings.prices.stale_after_days
        typer.echo(f"{stale} of {len(rows)} prices are stale: checked more than {limit} days ago")
    for licence in dict.fromkeys(part.licence for part in book.lists if part.licence):
        typer.echo(licence)


@prices_app.command("diff")
def diff(
    file: FileArgument,
    provider: ProviderOption = None,
    on: DayOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """What FILE prices differently from the prices in use: added, changed and removed, old and new, in percent."""
    from spillway_router.prices.book import PriceBook
    from spillway_router.prices.changes import changes
    from spillway_router.providers.interface import ProviderError

    day = _day(on)
    try:
        source = _source(file, day)
        found = list(changes(_book(load(config).settings.price_file), PriceBook((source.prices,)), day))
    except ProviderError as error:
        fail(f"{file}: {error}")
    found = [change for change in found if provider in (None, change.provider)]
    if as_json:
        typer.echo(json.dumps({"day": day.isoformat(), "changes": [asdict(change) for change in found]}, indent=2))
        return
    _show_changes(found, f"{file} against the prices in use on {day}")
    _show_skipped(source)


@prices_app.command("import")
def import_prices(
    file: FileArgument,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="First day of prices that name none (LiteLLM's); today if left out."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change and write nothing.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite prices that were imported for the same first day.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the prices of FILE to your own price list, as new dated rows: earlier days keep the price they had."""
    from spillway_router.prices.book import OWN_SOURCE, PriceBook, read_list
    from spillway_router.prices.changes import changes
    from spillway_router.prices.imported import add, locked, write
    from spillway_router.providers.interface import ProviderError

    target, day = load(config).settings.price_file, _day(as_of)
    try:
        source = _source(file, day)
    except ProviderError as error:
        fail(f"{file}: {error}")
    try:
        with locked(target):
            before = _book(target)
            own = read_list(target, OWN_SOURCE) if target.exists() else None
            added = add(source, before, own, day)
            found = list(changes(before, PriceBook((*before.lists, added.prices)), max(day, _day(None))))
            if added.conflicts and not replace:
                fail(_conflict(added.conflicts))
            if not dry_run:
                write(target, added.content)
    except ProviderError as error:
        fail(str(error))
    if as_json:
        told: dict[str, Any] = {"file": str(target), "written": not dry_run, "models": added.models}
        told |= {"changes": [asdict(change) for change in found], "left_out": dict(source.skipped)}
        typer.echo(json.dumps(told, indent=2))
        return
    _show_changes(found, "Would change" if dry_run else "Changed")
    _show_skipped(source)
    count = f"{added.models} models"
    typer.echo(f"nothing written (--dry-run): {target} would price {count}" if dry_run else f"{target} prices {count}")
    if not dry_run:
        typer.echo("a running router takes them up on SIGHUP or POST /admin/reload")


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is no day; write it like 2026-11-20")


def _book(own: Path) -> PriceBook:
    from spillway_router.prices.book import book

    return book(own)


def _source(file: Path, day: date) -> Source:
    from spillway_router.prices.imported import MAX_BYTES, read_source
    from spillway_router.providers.interface import ProviderError

    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ProviderError(f"can't be read: {error.strerror or error}") from None
    return read_source(text, day)


def _conflict(conflicts: Sequence[str]) -> str:
    shown = ", ".join(conflicts[:5]) + (f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else "")
    return (
        f"nothing written: other prices were imported for the same first day ({shown}). If the price changed since, "
        "give the day it did with --as-of; if the earlier import was wrong, use --replace"
    )


def _row(
    provider: str, model: str, known: ModelRecord, tariff: Tariff | None, day: date, stale_after_days: int
) -> dict[str, Any]:
    """One model as JSON: decimal text in USD per million tokens, null where there is no such price."""
    from spillway_router.prices.status import age_days, price_status

    found = price_status(known, day, stale_after_days)
    age = age_days(known, day)
    rates = dict.fromkeys(RATES) if tariff is None else _rates(tariff.rates)
    steps = [] if tariff is None else tariff.steps
    return {
        "provider": provider,
        "model": model,
        "unit": "USD per million tokens",
        **rates,
        "usd_per_request": None if tariff is None else plain(tariff.per_request),
        "usd_per_second": None if tariff is None else plain(tariff.per_second),
        "steps": [{"above_tokens": s.above_tokens, "service": s.service, **_rates(s.rates)} for s in steps],
        "valid_from": None if tariff is None else tariff.valid_from,
        "valid_until": None if tariff is None else tariff.valid_until,
        "source": None if tariff is None else tariff.source,
        "checked_on": _iso(known.checked_on),
        "age_days": age,
        "stale": age is not None and age > stale_after_days,
        "deprecated_on": _iso(known.deprecated_on),
        "retired_on": _iso(known.retired_on),
        "usable": not found.off,
        "notes": [found.off] if found.off else list(found.warnings),
    }


def plain(value: Decimal) -> str:
    """A price as short decimal text without an exponent."""
    return f"{value.normalize():f}"


def _rates(rates: Rates) -> dict[str, str | None]:
    return {name: None if (value := getattr(rates, name)) is None else plain(value) for name in RATES}


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _lines(row: dict[str, Any]) -> Iterator[str]:
    """A model: its usual prices, one more line per step, then what should be known of it."""
    since = f"from {row['valid_from']}" if row["valid_from"] else "no price"
    until = f" until {row['valid_until']}" if row["valid_until"] else ""
    age = "" if row["age_days"] is None else f", checked {row['age_days']} days ago"
    yield f"{row['provider'] + '  ' + row['model']:60}{_columns(row)}  {since}{until}{age}{' (stale)' * row['stale']}"
    for step in row["steps"]:
        where = f"prompts above {step['above_tokens']:,} tokens" if step["above_tokens"] else "any prompt"
        yield f"{'    ' + (step['service'] + ', ' if step['service'] else '') + where:60}{_columns(step)}"
    extra = [f"{row[key]} USD per {what}" for key, what in _APART.items() if row[key] not in (None, "0")]
    # That a price is stale is said once, below the table.
    notes = [note for note in row["notes"] if "stale_after_days" not in note]
    yield from (f"    {text}" for text in [*extra, *notes])


_APART = {"usd_per_request": "request", "usd_per_second": "second"}


def _columns(rates: dict[str, Any]) -> str:
    return "".join(f" {rates[name] or '-':>9}" for name in RATES)


def _show_changes(found: Sequence[Change], title: str) -> None:
    models = len({(change.provider, change.model) for change in found})
    typer.echo(f"{title}: {len(found)} prices of {models} models" if found else f"{title}: no price differs")
    for change in found:
        was, now = change.old or "-", change.new or "-"
        percent = f"  {change.percent} %" if change.percent else ""
        doubt = "  <- more than tenfold: is the unit right?" if change.suspicious else ""
        name = f"{change.provider}  {change.model}"
        typer.echo(f"{change.kind:8} {name:56} {change.price}: {was} -> {now} {change.unit}{percent}{doubt}")


def _show_skipped(source: Source) -> None:
    for name, why in source.skipped:
        typer.echo(f"left out {name}: {why}")
