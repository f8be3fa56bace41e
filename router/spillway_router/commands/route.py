"""`spillway route`: run only the router."""

from __future__ import annotations

import logging
import sys
from typing import Any

import typer

from spillway_router import compiled
from spillway_router.commands.common import ConfigOption, fail, load, version
from spillway_router.config.load import ConfigError, Loaded


def route(path: ConfigOption = None) -> None:
    """Run only the router."""
    run_router(load(path))


def run_router(loaded: Loaded, companions: tuple[Any, ...] = ()) -> None:
    """Run the router until a signal; `companions` are coroutines that run as long as it does."""
    _leave_out_command_line_of_httpx()

    import uvloop

    from spillway_router.commands.rental_watch import RentalWatch
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.runtime import serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)

    def listening(url: str) -> None:
        if (hot_path := compiled.state()) != "compiled":
            typer.echo(f"hot path: {hot_path}")
        typer.echo(f"Spillway listens on {url}  (OpenAI base URL: {url}/v1, docs: {url}/docs)")
        sys.stdout.flush()

    try:
        uvloop.run(serve.route(loaded, version(), listening, (*companions, RentalWatch(loaded).run())))
    except ConfigError as error:
        fail("\n".join(str(m) for m in error.problems))
    except LedgerError as error:
        fail(f"ledger: {error}")
    except OSError as error:
        reason = error.strerror or error
        fail(f"can't listen on {loaded.settings.listen}: {reason}; change `listen` or stop the other process")


def _leave_out_command_line_of_httpx() -> None:
    """Have httpx not import its own command line, which brings rich and pygments along: 3 MB of the router's memory
    that nothing uses. httpx takes it for one that is not installed, and has a stand-in for that case.
    """
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None: an import of it fails
