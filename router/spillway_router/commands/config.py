"""`spillway config`: the settings in force, and what another file would change."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel

from spillway_router.commands.common import ConfigOption, JsonOption, load
from spillway_router.core.redaction import HIDDEN

config_app = typer.Typer(no_args_is_help=True, help="Show the settings in force, and what another file would change.")
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@\s]+@")
AllOption = Annotated[bool, typer.Option("--all", help="Show the settings at their defaults too.")]


@config_app.command("show")
def show(path: ConfigOption = None, whole: AllOption = False, as_json: JsonOption = False) -> None:
    """Print the settings in force, with every secret hidden; without --all those that differ from their defaults."""
    values = shown_settings(load(path).settings, whole=whole)
    typer.echo(json.dumps(values, indent=2) if as_json else _yaml(values), nl=as_json)


@config_app.command("diff")
def diff(
    other: Annotated[Path, typer.Argument(help="The file to compare with the configuration.")],
    path: ConfigOption = None,
) -> None:
    """Show what another file would change, setting by setting, with every secret hidden. Exit with 1 if it would."""
    present, proposed = (_yaml(shown_settings(load(file).settings, whole=True)) for file in (path, str(other)))
    lines = difflib.unified_diff(present.splitlines(), proposed.splitlines(), "in force", str(other), lineterm="", n=2)
    changes = list(lines)
    for line in changes:
        typer.echo(line)
    if not changes:
        typer.echo("no setting differs")
        return
    raise typer.Exit(1)


def shown_settings(part: BaseModel, *, whole: bool) -> dict[str, Any]:
    """Return settings as JSON values, those that the settings hide from messages as `***`."""
    values: dict[str, Any] = {}
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if not whole and name not in part.model_fields_set:
            continue
        values[name] = HIDDEN if not field.repr and value else _shown(value, whole)
    return values


def _shown(value: Any, whole: bool) -> Any:
    if isinstance(value, BaseModel):
        return shown_settings(value, whole=whole)
    if isinstance(value, tuple | list):
        return [_shown(one, whole) for one in value]
    if isinstance(value, frozenset | set):
        return sorted(_shown(one, whole) for one in value)
    if hasattr(value, "items"):
        return {str(name): _shown(one, whole) for name, one in value.items()}
    if isinstance(value, bool | int | float) or value is None:
        return value
    return _PASSWORD.sub(rf"\1{HIDDEN}@", str(value))


def _yaml(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120) if values else ""
