"""What all commands share: options, errors on stderr with exit 1, opening configuration and ledger."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from spillway_router import config
from spillway_router.config import ConfigError, Loaded

if TYPE_CHECKING:
    from spillway_router.ledger.base import Ledger

ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="Path of spillway.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str) -> NoReturn:
    """Say what is wrong on stderr and exit 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)


def load(path: str | None) -> Loaded:
    """The configuration; its mistakes end the command."""
    try:
        return config.read(path)
    except ConfigError as error:
        fail("The configuration has mistakes:\n" + "\n".join(f"  - {m}" for m in error.mistakes))


def version() -> str:
    """Version of the installed distribution."""
    return distribution_version("spillway")


def open_ledger(loaded: Loaded) -> Ledger:
    """The ledger of the configuration; an error ends the command."""
    from spillway_router.ledger import url
    from spillway_router.ledger.base import LedgerError

    try:
        return url.open_ledger(loaded.settings.ledger.url)
    except LedgerError as error:
        fail(f"ledger: {error}")
