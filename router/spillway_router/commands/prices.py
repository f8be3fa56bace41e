"""`spillway prices`: show what the cloud models cost, compare price lists, and import a newer one."""

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

prices_app = typer.Typer(no_args_is_help=True, help="Manage the prices of the cloud models: list, diff, import.")

ProviderOption = Annotated[str | None, typer.Option(help="Show only this provider.")]
FileArgument = Annotated[
    Path, typer.Argument(help="LiteLLM's model_prices_and_context_window.json, or a price list of Spillway.")
]
DayOption = Annotated[str | None, typer.Option(metavar="DATE", help="Day, such as 2026-11-20. The default is today.")]
RATES = ("input", "output", "cached_input", "cache_write", "cache_write_long", "reasoning")
_HEADINGS = ("input", "output", "cached", "write", "write 1h", "reasoning")


@prices_app.command("list")
def list_prices(
    provider: ProviderOption = None, on: DayOption = None, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """List USD per million tokens of every model on a day, and when each price began and was last checked."""
    from spillway_router.prices.book import priced
    from spillway_router.prices.rows import PriceError

    settings = load(config).settings
    day = _day(on)
    try:
        book = _book(settings.price_file)
        models = list(priced(book, day, (provider,) if provider else ()))
    except PriceError as error:
        fail(str(error))
    if not models:
        fail(f"no prices for {provider!r}; without --provider all are listed")
    rows = [_row(*model, day, settings.prices.stale_after_days) for model in models]
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
    """Show what FILE prices differently from the prices in use: added, changed and removed prices, with percentages."""
    from spillway_router.prices.book import PriceBook
    from spillway_router.prices.changes import changes
    from spillway_router.prices.rows import PriceError

    day = _day(on)
    try:
        source = _source(file, day)
        differences = list(changes(_book(load(config).settings.price_file), PriceBook((source.prices,)), day))
    except PriceError as error:
        fail(f"{file}: {error}")
    differences = [change for change in differences if provider in (None, change.provider)]
    if as_json:
        typer.echo(
            json.dumps({"day": day.isoformat(), "changes": [asdict(change) for change in differences]}, indent=2)
        )
        return
    _show_changes(differences, f"{file} against the prices in use on {day}")
    _show_skipped(source)


@prices_app.command("import")
def import_prices(
    file: FileArgument,
    as_of: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", help="First day of prices that name none, such as LiteLLM's. The default is today."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite prices that were imported for the same first day.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the prices of FILE to your own price list as new dated rows; earlier days keep their prices."""
    from spillway_router.prices.book import OWN_SOURCE, PriceBook, read_list
    from spillway_router.prices.changes import changes
    from spillway_router.prices.imported import add, locked, write
    from spillway_router.prices.rows import PriceError

    target, day = load(config).settings.price_file, _day(as_of)
    try:
        source = _source(file, day)
    except PriceError as error:
        fail(f"{file}: {error}")
    try:
        with locked(target):
            before = _book(target)
            own_list = read_list(target, OWN_SOURCE) if target.exists() else None
            added = add(source, before, own_list, day)
            differences = list(changes(before, PriceBook((*before.lists, added.prices)), max(day, _day(None))))
            if added.conflicts and not replace:
                fail(_conflict(added.conflicts))
            if not dry_run:
                write(target, added.content)
    except PriceError as error:
        fail(str(error))
    if as_json:
        summary: dict[str, Any] = {"file": str(target), "written": not dry_run, "models": added.models}
        summary |= {"changes": [asdict(change) for change in differences], "left_out": dict(source.skipped)}
        typer.echo(json.dumps(summary, indent=2))
        return
    _show_changes(differences, "Would change" if dry_run else "Changed")
    _show_skipped(source)
    count = f"{added.models} models"
    typer.echo(f"nothing written (--dry-run): {target} would price {count}" if dry_run else f"{target} prices {count}")
    if not dry_run:
        typer.echo("a running router loads them on SIGHUP or POST /admin/reload")


def _day(text: str | None) -> date:
    if text is None:
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is not a day; write it as 2026-11-20")


def _book(own_list: Path) -> PriceBook:
    from spillway_router.prices.book import book

    return book(own_list)


def _source(file: Path, day: date) -> Source:
    from spillway_router.prices.imported import MAX_BYTES, read_source
    from spillway_router.prices.rows import PriceError

    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise PriceError(f"can't be read: {error.strerror or error}") from None
    return read_source(text, day)


def _conflict(conflicts: Sequence[str]) -> str:
    shown = ", ".join(conflicts[:5]) + (f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else "")
    return (
        f"nothing written: other prices were imported for the same first day ({shown}). If the price has changed "
        "since, give the day of the change with --as-of; if the earlier import was wrong, use --replace"
    )


def _row(
    provider: str, model: str, record: ModelRecord, tariff: Tariff | None, day: date, stale_after_days: int
) -> dict[str, Any]:
    """Return one model as JSON values: decimal text in USD per million tokens, null where there is no such price."""
    from spillway_router.prices.status import age_days, price_status

    status = price_status(record, day, stale_after_days)
    age = age_days(record, day)
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
        "checked_on": _iso(record.checked_on),
        "age_days": age,
        "stale": age is not None and age > stale_after_days,
        "deprecated_on": _iso(record.deprecated_on),
        "retired_on": _iso(record.retired_on),
        "usable": not status.off,
        "notes": [status.off] if status.off else list(status.warnings),
    }


def plain(value: Decimal) -> str:
    """Format a price as short decimal text without an exponent."""
    return f"{value.normalize():f}"


def _rates(rates: Rates) -> dict[str, str | None]:
    return {name: None if (value := getattr(rates, name)) is None else plain(value) for name in RATES}


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _checked(age_days: int) -> str:
    """Return when a price was last checked; the date may have been given ahead of time."""
    if age_days < 0:
        return f"checked on a date {-age_days} days ahead"
    return f"checked {age_days} days ago"


def _lines(row: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a model: its usual prices, one line per step, then notes."""
    since = f"from {row['valid_from']}" if row["valid_from"] else "no price"
    until = f" until {row['valid_until']}" if row["valid_until"] else ""
    age = "" if row["age_days"] is None else f", {_checked(row['age_days'])}"
    yield f"{row['provider'] + '  ' + row['model']:60}{_columns(row)}  {since}{until}{age}{' (stale)' * row['stale']}"
    for step in row["steps"]:
        where = f"prompts above {step['above_tokens']:,} tokens" if step["above_tokens"] else "any prompt"
        yield f"{'    ' + (step['service'] + ', ' if step['service'] else '') + where:60}{_columns(step)}"
    extra = [f"{row[key]} USD per {what}" for key, what in _EXTRA_PRICES.items() if row[key] not in (None, "0")]
    # The line below the table reports stale prices once for all models.
    notes = [note for note in row["notes"] if "stale_after_days" not in note]
    yield from (f"    {text}" for text in [*extra, *notes])


_EXTRA_PRICES = {"usd_per_request": "request", "usd_per_second": "second"}


def _columns(rates: dict[str, Any]) -> str:
    return "".join(f" {rates[name] or '-':>9}" for name in RATES)


def _show_changes(differences: Sequence[Change], title: str) -> None:
    models = len({(change.provider, change.model) for change in differences})
    typer.echo(
        f"{title}: {len(differences)} prices of {models} models" if differences else f"{title}: no price differs"
    )
    for change in differences:
        was, now = change.old or "-", change.new or "-"
        percent = f"  {change.percent} %" if change.percent else ""
        warning = "  <- more than tenfold: is the unit right?" if change.suspicious else ""
        name = f"{change.provider}  {change.model}"
        typer.echo(f"{change.kind:8} {name:56} {change.price}: {was} -> {now} {change.unit}{percent}{warning}")


def _show_skipped(source: Source) -> None:
    for name, why in source.skipped:
        typer.echo(f"left out {name}: {why}")
