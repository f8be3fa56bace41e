"""`spillway prices`: show what the cloud models cost, compare price lists, and import or fetch a newer one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, say
from spillway_router.commands.option_groups import takes
from spillway_router.commands.running_router import LedgerOrRouter, RouterAddress, get_json
from spillway_router.prices.listing import RATES, iso_day

if TYPE_CHECKING:
    from spillway_router.prices.book import PriceBook
    from spillway_router.prices.changes import Change, Withdrawal
    from spillway_router.prices.imported import Added, Source
    from spillway_router.prices.listing import PriceListing

prices_app = typer.Typer(
    no_args_is_help=True, help="Manage the prices of the cloud models: list, diff, import, update."
)

ProviderOption = Annotated[str | None, typer.Option(help="Show only this provider.")]
_KINDS = (
    "LiteLLM's model_prices_and_context_window.json, OpenRouter's or Hugging Face's list of models, the data.json of "
    "genai-prices, or a price list of Spillway."
)
FileArgument = Annotated[Path, typer.Argument(help=_KINDS)]
AsOfOption = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="First day of prices that name none, such as LiteLLM's. The default is today."),
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Overwrite prices that were imported for the same first day.")
]
DayOption = Annotated[str | None, typer.Option(metavar="DATE", help="Day, such as 2026-11-20. The default is today.")]
_HEADINGS = ("input", "output", "cached", "write", "write 1h", "reasoning")


@prices_app.command("list")
@takes("place", LedgerOrRouter)
def list_prices(
    place: LedgerOrRouter,
    provider: ProviderOption = None,
    on: DayOption = None,
) -> None:
    """List USD per million tokens of every model on a day, and when each price began and was last checked."""
    router = place.router
    listing = _own_listing(place.config, provider, _day(on)) if router is None else _listing_of(router, provider, on)
    if not listing.models:
        fail(f"no prices for {provider!r}; without --provider all are listed")
    if place.as_json:
        typer.echo(json.dumps(listing.models, indent=2))
        return
    say(f"Prices on {listing.day} in USD per million tokens")
    typer.echo(" " * 60 + "".join(f" {name:>9}" for name in _HEADINGS))
    for row in listing.models:
        for line in _lines(row):
            say(line)
    stale = sum(row["stale"] for row in listing.models)
    if stale:
        say(f"{stale} of {len(listing.models)} prices are stale: checked more than {listing.stale_after_days} days ago")
    for licence in listing.licences:
        say(licence)


def _own_listing(config: str | None, provider: str | None, day: date) -> PriceListing:
    """Return the prices by the configuration. A problem ends the command."""
    from spillway_router.prices.listing import listed
    from spillway_router.prices.rows import PriceError

    settings = load(config).settings
    try:
        return listed(settings.price_file, provider, day, settings.prices.stale_after_days)
    except PriceError as error:
        fail(str(error))


def _listing_of(router: RouterAddress, provider: str | None, on: str | None) -> PriceListing:
    """Return the prices by which a running router charges. A refusal ends the command."""
    from spillway_router.prices.listing import PriceListing

    asked = {"provider": provider, "on": on}
    values = get_json(router, "/v1/prices", {name: value for name, value in asked.items() if value is not None})
    return PriceListing(
        day=date.fromisoformat(values["day"]),
        stale_after_days=values["stale_after_days"],
        models=values["models"],
        licences=values["licences"],
    )


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
    as_of: AsOfOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and write nothing.")] = False,
    overwrite: ReplaceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the prices of FILE to your own price list as new dated rows; earlier days keep their prices."""
    from spillway_router.prices.rows import PriceError

    target, day = load(config).settings.price_file, _day(as_of)
    try:
        source = _source(file, day)
    except PriceError as error:
        fail(f"{file}: {error}")
    plan = _take(target, source, day, overwrite=overwrite, write=not dry_run)
    if as_json:
        typer.echo(json.dumps(_plan_values(plan, target, source, written=not dry_run), indent=2))
        return
    _show_plan(plan, source, "Would change" if dry_run else "Changed")
    if dry_run:
        say(f"nothing written (--dry-run): {target} would price {plan.added.models} models")
    else:
        _say_written(plan, target)


@prices_app.command("update")
def update_prices(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help=f"File or https address of {_KINDS}")],
    provider: Annotated[str | None, typer.Option(help="Take only the prices of this provider.")] = None,
    as_of: AsOfOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")] = False,
    overwrite: ReplaceOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a newer list changes, ask, and add its prices to your own list as new dated rows.

    Without --yes, --json only shows the changes.
    """
    from spillway_router.prices.rows import PriceError

    target, day = load(config).settings.price_file, _day(as_of)
    try:
        newer = _of_provider(_fetched(source, day), provider)
    except PriceError as error:
        fail(f"{source}: {error}")
    plan = _take(target, newer, day, overwrite=overwrite, write=yes)
    if as_json:
        typer.echo(json.dumps(_plan_values(plan, target, newer, written=yes), indent=2))
        return
    _show_plan(plan, newer, "Changed" if yes else "Would change")
    if not yes:
        if not plan.changes and not any(one.retired_on for one in plan.withdrawals):
            typer.echo("nothing to write: no price differs")
            return
        if not sys.stdin.isatty():
            fail("nothing written: add --yes to write these changes")
        if not typer.confirm(f"Write them to {target}?"):
            fail("nothing written")
        plan = _take(target, newer, day, overwrite=overwrite, write=True)
    _say_written(plan, target)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a source adds to the own list."""

    added: Added
    changes: Sequence[Change]
    withdrawals: Sequence[Withdrawal]


def _take(target: Path, source: Source, day: date, *, overwrite: bool, write: bool) -> _Plan:
    """Return what `source` adds to the own list, and write it if asked. A problem ends the command."""
    from spillway_router.prices import imported
    from spillway_router.prices.book import OWN_SOURCE, PriceBook, read_list
    from spillway_router.prices.changes import changes, withdrawals
    from spillway_router.prices.rows import PriceError

    today = _day(None)
    try:
        with imported.locked(target):
            before = _book(target)
            own_list = read_list(target, OWN_SOURCE) if target.exists() else None
            added = imported.add(source, before, own_list, min(day, today))
            if added.conflicts and not overwrite:
                fail(_conflict(added.conflicts))
            after = PriceBook((*before.lists, added.prices))
            plan = _Plan(
                added=added,
                changes=list(changes(before, after, max(day, today))),
                withdrawals=list(withdrawals(before, after, source.prices.providers, today, complete=source.complete)),
            )
            if write:
                imported.write(target, added.content)
            return plan
    except PriceError as error:
        fail(str(error))


def _plan_values(plan: _Plan, target: Path, source: Source, *, written: bool) -> dict[str, Any]:
    return {
        "file": str(target),
        "written": written,
        "models": plan.added.models,
        "changes": [asdict(change) for change in plan.changes],
        "withdrawn": [{**asdict(one), "retired_on": iso_day(one.retired_on)} for one in plan.withdrawals],
        "left_out": dict(source.skipped),
    }


def _show_plan(plan: _Plan, source: Source, title: str) -> None:
    _show_changes(plan.changes, title)
    missing: dict[str, list[str]] = {}
    for one in plan.withdrawals:
        if one.retired_on is None:
            missing.setdefault(one.provider, []).append(one.model)
            continue
        instead = f"; change to {one.successor}" if one.successor else ""
        say(f"withdrawn {one.provider}  {one.model} on {one.retired_on}{instead}")
    for provider, models in missing.items():
        more = f" and {len(models) - _SHOWN_ALIKE} more (--json names them)" if len(models) > _SHOWN_ALIKE else ""
        say(f"not listed any more at {provider}: {', '.join(models[:_SHOWN_ALIKE])}{more}; they keep their price")
    _show_skipped(source)


def _say_written(plan: _Plan, target: Path) -> None:
    say(f"{target} prices {plan.added.models} models")
    typer.echo("a running router loads them on SIGHUP or POST /admin/reload")


def _fetched(source: str, day: date) -> Source:
    """Return the prices of a file or of an https address. Raises PriceError."""
    from spillway_router.prices.download import DownloadLimits, download, is_url
    from spillway_router.prices.imported import MAX_BYTES, read_source

    if not is_url(source):
        return _source(Path(source), day)
    content = download(source, DownloadLimits(MAX_BYTES))
    return _checked_by_now(read_source(content, day, origin=source.partition("?")[0]))


def _of_provider(source: Source, provider: str | None) -> Source:
    """Return only the prices of one provider. Raises PriceError if there are none."""
    from spillway_router.prices.rows import PriceError

    if provider is None:
        return source
    models = source.prices.providers.get(provider)
    if models is None:
        raise PriceError(f"no prices of {provider}; it has {', '.join(source.prices.providers)}")
    skipped = tuple(one for one in source.skipped if one[0].startswith(f"{provider}/"))
    return replace(source, prices=replace(source.prices, providers={provider: models}), skipped=skipped)


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
    return _checked_by_now(read_source(text, day, origin=file.name))


def _checked_by_now(source: Source) -> Source:
    """Return the source as checked today at the latest: a price may apply from a later day, but nobody checked it
    then."""
    today = _day(None)
    return replace(source, prices=replace(source.prices, checked_on=min(source.prices.checked_on or today, today)))


def _conflict(conflicts: Sequence[str]) -> str:
    shown = ", ".join(conflicts[:5]) + (f" and {len(conflicts) - 5} more" if len(conflicts) > 5 else "")
    return (
        f"nothing written: other prices were imported for the same first day ({shown}). If the price has changed "
        "since, give the day of the change with --as-of; if the earlier import was wrong, use --replace"
    )


def _lines(row: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a model: its usual prices, one line per step, then notes."""
    since = f"from {row['valid_from']}" if row["valid_from"] else "no price"
    until = f" until {row['valid_until']}" if row["valid_until"] else ""
    name, age = f"{row['provider']}  {row['model']}", _checked(row) + " (stale)" * row["stale"]
    yield f"{name:60}{_columns(row)}  {since}{until}{age}"
    for step in row["steps"]:
        where = f"prompts above {step['above_tokens']:,} tokens" if step["above_tokens"] else "any prompt"
        yield f"{'    ' + (step['service'] + ', ' if step['service'] else '') + where:60}{_columns(step)}"
    yield f"    {_about(row)}"
    extra = [f"{row[key]} USD per {what}" for key, what in _EXTRA_PRICES.items() if row[key] not in (None, "0")]
    # The line below the table reports stale prices once for all models.
    notes = [note for note in row["notes"] if "stale_after_days" not in note]
    yield from (f"    {text}" for text in [*extra, *notes])


def _checked(row: dict[str, Any]) -> str:
    """Return when the price was last checked, seen from the day of the listing."""
    if row["age_days"] is not None:
        return f", checked {row['age_days']} days ago"
    return "" if row["checked_on"] is None else f", checked on {row['checked_on']}"


def _about(row: dict[str, Any]) -> str:
    """Return what is known of a model beside its prices: its context, what it can do, and who published the price."""
    able = row["capabilities"]
    parts = [f"context {row['context_tokens']:,}"] if row["context_tokens"] else []
    parts += [", ".join(name for name, value in able.items() if value)] if any(able.values()) else []
    denied = ", ".join(name for name, value in able.items() if value is False)
    parts += [f"not {denied}"] if denied else []
    parts += [f"by {row['origin']}"] if row["origin"] else []
    return " · ".join(parts) or "nothing else is known"


_EXTRA_PRICES = {"usd_per_request": "request", "usd_per_second": "second"}


def _columns(rates: dict[str, Any]) -> str:
    return "".join(f" {rates[name] or '-':>9}" for name in RATES)


def _show_changes(differences: Sequence[Change], title: str) -> None:
    models = len({(change.provider, change.model) for change in differences})
    say(f"{title}: {len(differences)} prices of {models} models" if differences else f"{title}: no price differs")
    for change in differences:
        was, now = change.old or "-", change.new or "-"
        percent = f"  {change.percent} %" if change.percent else ""
        warning = "  <- more than tenfold: is the unit right?" if change.suspicious else ""
        name = f"{change.provider}  {change.model}"
        say(f"{change.kind:8} {name:56} {change.price}: {was} -> {now} {change.unit}{percent}{warning}")


_SHOWN_ALIKE = 3


def _show_skipped(source: Source) -> None:
    """Print what was left out: a few names of each reason in full, and the number of the others."""
    alike: dict[str, list[str]] = {}
    for name, why in source.skipped:
        alike.setdefault(why, []).append(name)
    for why, names in alike.items():
        for name in names[:_SHOWN_ALIKE]:
            say(f"left out {name}: {why}")
        if len(names) > _SHOWN_ALIKE:
            say(f"left out {len(names) - _SHOWN_ALIKE} more: {why} (--json names them)")
