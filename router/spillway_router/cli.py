"""`spillway`: the command line, composed of the modules in commands/ and of the server's commands."""

from __future__ import annotations

from typing import Annotated

import typer

from spillway_router.commands.registry import CommandGroup

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A rented GPU first, the cloud when it spills over.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from spillway_router.commands.common import version

        typer.echo(f"spillway {version()}")
        raise typer.Exit


@app.callback()
def spillway(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """The options of `spillway` itself."""
