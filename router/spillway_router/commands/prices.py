"""`spillway prices`: what the cloud models cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from spillway_router.commands.base import JsonOption, fail

prices_app = typer.Typer(no_args_is_help=True, help="Prices of the cloud models that are known.")


@prices_app.command("list")
def list_prices(
    provider: Annotated[str | None, typer.Option(help="Only this provider.")] = None,
    as_json: JsonOption = False,
) -> None:
    """USD per million tokens of every model in the price list, with the day each price began."""
    from spillway_router.providers.base import ProviderError
    from spillway_router.providers.prices import listed

    try:
        rows = [row for row in listed(datetime.now(UTC).date()) if provider in (None, row.provider)]
    except ProviderError as error:
        fail(str(error))
    if not rows:
        fail(f"no prices for {provider!r}; without --provider all are shown")
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    typer.echo("USD per million tokens: input, output, cached input, valid from")
    for row in rows:
        cached = row.cached_input or "-"
        name = f"{row.provider}  {row.model}"
        retired = f"  retired {row.retired_on}" if row.retired_on else ""
        typer.echo(f"{name:64} {row.input:>8} {row.output:>8} {cached:>8}  {row.valid_from}{retired}")
