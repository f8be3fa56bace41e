"""The pages of the site that are generated from the product: its settings, its commands and its HTTP API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click
import typer

from spillway_router.cli import app
from spillway_router.config.settings import Settings
from spillway_router.proxy.control.openapi import INFERENCE, OWN, Operation

_GENERATED = "This page is generated from the product when the site is built.\n"


def settings_page() -> str:
    """Return the settings by their groups, with types, defaults and the words of the JSON schema."""
    schema = Settings.model_json_schema()
    lines = ["# All settings", "", _GENERATED, *_properties(schema)]
    for name, part in sorted(schema["$defs"].items()):
        if "properties" in part:
            lines += ["", f"## {name}", "", _one_line(part.get("description", "")), "", *_properties(part)]
    return "\n".join([*lines, ""])


def _properties(part: Mapping[str, Any]) -> Iterator[str]:
    yield "| setting | value | default |"
    yield "|---|---|---|"
    for name, field in part["properties"].items():
        default = "required" if name in part.get("required", ()) else f"`{_cell(field.get('default', ''))}`"
        yield f"| `{name}` | {_cell(_kind(field))} | {default} |"


def _kind(field: Mapping[str, Any]) -> str:
    """Return what a setting holds: a type, a choice, or the group that is described below."""
    if "$ref" in field:
        name = str(field["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(one) for one in field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if field.get("type") == "array":
        inner = field.get("items")
        return f"list of {_kind(inner)}" if inner else "list"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"names with {_kind(field['additionalProperties'])}"
    bounds = [f"{sign} {field[name]}" for name, sign in _BOUNDS.items() if name in field]
    return " ".join([str(field.get("type", "any")), *bounds])


_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def commands_page() -> str:
    """Return every command with its help, arguments and options."""
    lines = ["# All commands and options", "", _GENERATED]
    for words, command in _commands(typer.main.get_command(app), ()):
        lines += [f"## spillway {words}", "", _one_line(command.help or ""), ""]
        rows = [_parameter(one) for one in command.params if not getattr(one, "hidden", False) and one.name != "help"]
        if rows:
            lines += ["| parameter | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    if words and (not inner or command.invoke_without_command):
        yield " ".join(words), command
    for word, sub in inner.items():
        yield from _commands(sub, (*words, word))


def _parameter(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name or '').upper()}`"
    return f"| {names} | {_cell(getattr(parameter, 'help', None) or '')} |"


def http_page() -> str:
    """Return every route with its summary, its body and the errors that it can answer."""
    inference = {("post", path): operation for path, operation in INFERENCE.items()}
    lines = [
        "# All routes",
        "",
        _GENERATED,
        "| route | what it does | fields of the body | errors |",
        "|---|---|---|---|",
    ]
    for (method, path), operation in {**inference, **OWN}.items():
        errors = ", ".join(map(str, operation.errors)) or "-"
        lines.append(f"| `{method.upper()} {path}` | {_cell(operation.summary)} | {_fields(operation)} | {errors} |")
    return "\n".join([*lines, ""])


def _fields(operation: Operation) -> str:
    required = set() if operation.body is None else set(operation.body.get("required", ()))
    names = () if operation.body is None else operation.body.get("properties", {})
    return ", ".join(f"**`{name}`**" if name in required else f"`{name}`" for name in names) or "-"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("\\[", "[")


def _cell(value: object) -> str:
    return _one_line(str(value)).replace("|", "\\|").replace("<", "&lt;")
