"""The command line's table of commands, and the group that imports a command's module when the command is named.

A process pays only for the command that it runs: `spillway route` stays small and `spillway keys` starts quickly,
whatever the other commands import. Help and shell tools go through the whole table and import every module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperGroup

from spillway_router.commands.numbers import in_plain_digits

_MARKUP = re.compile(r"\[(?=[a-z#/@])")
"""A bracket with which rich's markup may begin."""
COMMANDS = {
    "route": "spillway_router.commands.route:route",
    "up": "spillway_router.commands.up:up",
    "check": "spillway_router.commands.check:check",
    "chat": "spillway_router.commands.chat:chat",
    "status": "spillway_router.commands.status:status",
    "top": "spillway_router.commands.status:top",
    "requests": "spillway_router.commands.requests:requests",
    "explain": "spillway_router.commands.explain:explain",
    "logs": "spillway_router.commands.logs:logs",
    "dashboard": "spillway_router.commands.dashboard:dashboard",
    "init": "spillway_router.commands.init:init",
    "config": "spillway_router.commands.config:config_app",
    "extract": "spillway_router.commands.extract:extract",
    "deploy": "spillway_router.commands.deploy:deploy",
    "calibrate": "spillway_router.commands.calibrate:calibrate",
    "calibrate-cache": "spillway_router.commands.calibrate_cache:calibrate_cache",
    "calibrate-complexity": "spillway_router.commands.calibrate_complexity:calibrate_complexity",
    "serve": "spillway_server.cli:serve",
    "plan": "spillway_server.cli:plan",
    "doctor": "spillway_router.commands.doctor:doctor",
    "convert": "spillway_server.convert_command:convert",
    "push": "spillway_server.push_command:push",
    "schema": "spillway_router.commands.schema:schema",
    "keys": "spillway_router.commands.keys:keys_app",
    "ledger": "spillway_router.commands.ledger:ledger_app",
    "prices": "spillway_router.commands.prices:prices_app",
    "report": "spillway_router.commands.report:report_app",
    "replay": "spillway_router.commands.replay:replay",
    "rentals": "spillway_router.commands.rentals:rentals_app",
    "fleet": "spillway_router.commands.fleet:fleet_app",
    "pod": "spillway_router.commands.pod:pod_app",
    "reviews": "spillway_router.commands.reviews:reviews_app",
}
"""Every command by its name, in the order of the help: the module and the function, or the typer application, there."""


class CommandTable(Mapping[str, Any]):
    """The click commands of a table like `COMMANDS`. Reading one imports its module."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places

    def __getitem__(self, name: str) -> Any:
        module, _, attribute = self._places[name].partition(":")
        return in_plain_digits(_command(name, getattr(import_module(module), attribute)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class CommandGroup(TyperGroup):
    """The group of all commands in `COMMANDS`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = CommandTable(COMMANDS)  # type: ignore[assignment]  # typer and click only read it

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PermissionError as error:
            typer.echo(_not_permitted(error), err=True)
            raise typer.Exit(1) from None


def _not_permitted(error: PermissionError) -> str:
    """Return what a user can do who may not read a file of the service."""
    return (
        f"{error.filename or 'a file'}: this user may not use it. Run the command as the user of the service, or ask "
        "the running router, which needs no file: spillway report --url http://HOST:8080 --key KEY"
    )


def _command(name: str, place: Any) -> Any:
    """Return the click command of a function or of a typer application."""
    if isinstance(place, typer.Typer):
        group = typer.main.get_group(place)
        group.name = name
        return group
    application = typer.Typer(add_completion=False)
    application.command(name, help=_escaped(cleandoc(place.__doc__ or "")))(place)
    return typer.main.get_command(application)


def _escaped(text: str) -> str:
    """Return a help text in which rich takes no bracket for its markup. Rich itself is left out of the router."""
    return _MARKUP.sub(r"\\[", text)
