"""`spillway check`: the configuration and all it refers to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from spillway_router import config
from spillway_router.commands.base import ConfigOption, JsonOption, fail, load, open_ledger
from spillway_router.config import ConfigError, Mistake

LiteLLMOption = Annotated[
    Path | None, typer.Option("--from-litellm", help="Print the spillway.yaml of a LiteLLM config.yaml instead.")
]


def check(path: ConfigOption = None, from_litellm: LiteLLMOption = None, as_json: JsonOption = False) -> None:
    """Validate configuration, keys, prices and the ledger; say every mistake and its fix."""
    from spillway_router.assembly import assemble

    if from_litellm is not None:
        _convert_litellm(from_litellm, as_json)
        return
    try:
        loaded = config.read(path) if as_json else load(path)
    except ConfigError as error:
        _print_checked(error.mistakes, (), ())
        raise typer.Exit(1) from None
    found = assemble(loaded.settings, loaded.environment, datetime.now(UTC).date())
    mistakes = [config.located(loaded.text, m) for m in found] if isinstance(found, tuple) else []
    off = [] if isinstance(found, tuple) else [config.located(loaded.text, m) for m in found.off]
    warnings = [] if isinstance(found, tuple) else [config.located(loaded.text, m) for m in found.warnings]
    open_ledger(loaded).close()
    if as_json:
        _print_checked(mistakes, off, warnings)
    else:
        typer.echo(f"configuration: {loaded.path or 'defaults (no spillway.yaml found)'}")
        for mistake in mistakes:
            typer.echo(f"  wrong  {mistake}")
        for one in off:
            typer.echo(f"  off    {one}")
        for warning in warnings:
            typer.echo(f"  warn   {warning}")
        if not isinstance(found, tuple):
            for place in found.places.values():
                kind = "local" if place.backend.local else "cloud"
                typer.echo(f"  ready  {place.backend.name}: {kind}, {place.backend.provider}, {place.backend.model}")
        typer.echo("no mistakes" if not mistakes else f"{len(mistakes)} to mend")
    if mistakes:
        raise typer.Exit(1)


def _print_checked(mistakes: Sequence[Mistake], off: Sequence[Mistake], warnings: Sequence[Mistake]) -> None:
    told = {"mistakes": mistakes, "off": off, "warnings": warnings}
    answer = {"ok": not mistakes} | {name: [asdict(m) for m in rows] for name, rows in told.items()}
    typer.echo(json.dumps(answer, indent=2))


def _convert_litellm(source: Path, as_json: bool) -> None:
    from spillway_router.litellm_import import LiteLLMError, convert

    try:
        made = convert(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, LiteLLMError) as error:
        fail(f"{source}: {error}")
    if as_json:
        typer.echo(json.dumps({"config": made.settings, "notes": made.notes}, indent=2))
        return
    typer.echo(made.text, nl=False)
    typer.echo(f"{len(made.settings['backends'])} backends converted, {len(made.notes)} notes at the top", err=True)
