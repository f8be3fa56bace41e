"""`spillway config`: the settings in force, and what another file would change."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, load
from spillway_router.config.shown import settings_yaml, shown_settings

config_app = typer.Typer(no_args_is_help=True, help="Show the settings in force, and what another file would change.")
AllOption = Annotated[bool, typer.Option("--all", help="Show the settings at their defaults too.")]


@config_app.command("show")
def show(path: ConfigOption = None, whole: AllOption = False, as_json: JsonOption = False) -> None:
    """Print the settings in force, with every secret hidden; without --all those that differ from their defaults."""
    values = shown_settings(load(path).settings, whole=whole)
    typer.echo(json.dumps(values, indent=2) if as_json else settings_yaml(values), nl=as_json)


@config_app.command("diff")
def diff(
    other: Annotated[Path, typer.Argument(help="The file to compare with the configuration.")],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what another file would change, setting by setting, with every secret hidden. Exit with 1 if it would."""
    before, after = (shown_settings(load(file).settings, whole=True) for file in (path, str(other)))
    if as_json:
        changed = [name for name in before if before[name] != after[name]]
        values = {name: {"in_force": before[name], "proposed": after[name]} for name in changed}
        typer.echo(json.dumps({"changed": values}, indent=2))
        raise typer.Exit(1 if values else 0)
    present, proposed = settings_yaml(before), settings_yaml(after)
    lines = difflib.unified_diff(present.splitlines(), proposed.splitlines(), "in force", str(other), lineterm="", n=2)
    changes = list(lines)
    for line in changes:
        typer.echo(line)
    if not changes:
        typer.echo("no setting differs")
        return
    raise typer.Exit(1)
