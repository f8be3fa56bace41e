"""Helpers of all commands: options, errors on stderr with exit status 1, opening configuration and ledger, times."""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO, TypeVar

import typer

from spillway_router.config import load as config
from spillway_router.config.load import ConfigError, ConfigProblem, Loaded
from spillway_router.core.printable import printable

if TYPE_CHECKING:
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.store.open import Access

DISTRIBUTION = "spillway-llm"
"""The name of the installed distribution; `spillway` on PyPI belongs to somebody else."""
ConfigOption = Annotated[str | None, typer.Option("--config", "-c", help="Path of spillway.yaml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


Row = TypeVar("Row")


def fail(message: str) -> NoReturn:
    """Print an error message on stderr and exit with status 1."""
    typer.echo(printable(message, keeps="\n\t"), err=True)
    raise typer.Exit(1)


def say(text: str) -> None:
    """Print lines in which names and texts of clients, providers and documents may stand: they steer no terminal."""
    typer.echo(printable(text, keeps="\n"))


def load(path: str | None) -> Loaded:
    """Read the configuration. Its problems end the command."""
    try:
        return config.read(path)
    except ConfigError as error:
        file = config.find(path)
        lines = [f"  - {problem.in_file(file)}" for problem in all_problems(error)]
        fail("The configuration has errors:\n" + "\n".join(lines))


def all_problems(error: ConfigError) -> tuple[ConfigProblem, ...]:
    """Return every problem of a configuration that can't be read."""
    from spillway_router.config.assemble import problems_of

    return problems_of(error, config.process_environment(), datetime.now(UTC).date())


def version() -> str:
    """Return the version of the installed distribution."""
    return distribution_version(DISTRIBUTION)


def open_ledger(loaded: Loaded, access: Access = "create") -> Ledger:
    """Open the ledger of the configuration. An error ends the command."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.store import open as url

    try:
        return url.open_ledger(loaded.settings.ledger.url, access)
    except LedgerError as error:
        fail(f"ledger: {error}")


@contextmanager
def opened(loaded: Loaded, access: Access = "create") -> Iterator[Ledger]:
    """Open the ledger of the configuration while the block runs. An error of the ledger ends the command.

    With `read`, the command changes nothing, and says on stderr which ledger it reads.
    """
    from spillway_router.ledger.errors import LedgerError

    ledger = open_ledger(loaded, access)
    ledger.actor = f"command of {_user()}"
    if access == "read":
        typer.echo(f"ledger: {ledger.name}", err=True)
    if ledger.notice:
        typer.echo(f"warning: {ledger.notice}", err=True)
    try:
        yield ledger
    except LedgerError as error:
        fail(f"ledger: {error}")
    finally:
        ledger.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"user {os.getuid()}"


@contextmanager
def writing(output: Path | None) -> Iterator[TextIO]:
    """Open the file to write to, standard output for None. A file that can't be written ends the command."""
    try:
        # newline="": the CSV writer ends its own lines.
        with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8", newline="") as out:
            yield out
    except OSError as error:
        fail(f"can't write {output}: {error.strerror or error}; choose another --output")


def rows_of(
    paths: Sequence[Path], read: Callable[[Iterable[str]], Iterable[Row]], malformed: type[Exception]
) -> list[Row]:
    """Return what `read` makes of the lines of these files.

    A file that can't be read, or for whose lines `read` raises `malformed`, ends the command.
    """
    rows: list[Row] = []
    for path in paths:
        try:
            with path.open(encoding="utf-8") as lines:
                rows.extend(read(lines))
        except OSError as error:
            fail(f"{path} can't be read: {error.strerror}")
        except (malformed, UnicodeDecodeError) as error:
            fail(f"{path}: {error}")
    return rows


def router_url(path: str | None, url: str | None) -> str:
    """Return the root URL of a router, without /v1: `url`, else `listen` of the configuration."""
    if url is None:
        settings = load(path).settings
        root = f"{settings.scheme}://{settings.listen}"
    else:
        root = url.rstrip("/").removesuffix("/v1")
    return root.replace("//0.0.0.0:", "//127.0.0.1:")


def now_ms() -> int:
    """Return the current time in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def when(ms: int) -> str:
    """Format epoch milliseconds as a UTC date and time."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
