"""`spillway route`: run only the router."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import typer

from spillway_router import compiled
from spillway_router.commands.common import ConfigOption, fail, load, version
from spillway_router.config.load import ConfigError, Loaded

log = logging.getLogger("spillway")
_UNUSED = ("httpx._main", "pydantic.color", "pydantic.v1")


def route(path: ConfigOption = None) -> None:
    """Run only the router."""
    run_router(load(path))


def run_router(loaded: Loaded, *companions: Callable[[], Awaitable[object]], engine_log: Path | None = None) -> None:
    """Run the router until a signal; `companions` are functions of coroutines that run as long as it does. `engine_log`
    is the log file of the engine among them."""
    _leave_out_unused_modules()

    import uvloop

    from spillway_router.aio.line_output import LineHandler, LineOutput
    from spillway_router.commands.fleet_keeper import FleetKeeper
    from spillway_router.commands.rental_watch import RentalWatch
    from spillway_router.config.exposure import exposure_warnings
    from spillway_router.config.running_proxies import running_proxies
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.runtime import serve
    from spillway_router.runtime.logs import configure_logging

    log_output = LineOutput(sys.stderr.fileno())
    configure_logging(LineHandler(log_output))

    for warning in exposure_warnings(loaded.settings, running_proxies()):
        log.warning("%s", warning)

    def listening(url: str) -> None:
        if (hot_path := compiled.state()) != "compiled":
            typer.echo(f"hot path: {hot_path}")
        typer.echo(f"Spillway listens on {url}  (OpenAI base URL: {url}/v1, docs: {url}/docs)")
        sys.stdout.flush()

    try:
        with log_output:
            beside = (*companions, RentalWatch(loaded).run, FleetKeeper(loaded).run)
            uvloop.run(serve.route(loaded, version(), listening, beside, log_output, engine_log))
    except ConfigError as error:
        fail("\n".join(str(m) for m in error.problems))
    except LedgerError as error:
        fail(f"ledger: {error}")
    except OSError as error:
        reason = error.strerror or error
        fail(f"can't listen on {loaded.settings.listen}: {reason}; change `listen` or stop the other process")


def _leave_out_unused_modules() -> None:
    """Keep libraries from importing what a router never uses: 5 MB of its memory.

    httpx imports its own command line, with rich and pygments, and FastAPI imports the first version of pydantic, which
    no model here is of, and its deprecated colours. Both do without where these are not installed. uvicorn imports its
    own command line, with click and what starts several processes, only to offer it to those who import uvicorn.
    """
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # None: an import of it fails
    if "uvicorn" not in sys.modules:
        command_line = ModuleType("uvicorn.main")
        vars(command_line).update(Server=None, main=None, run=None)  # the names that uvicorn imports from it
        sys.modules["uvicorn.main"] = command_line
