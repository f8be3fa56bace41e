"""`spillway report`: fixed and per-request cost side by side."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from spillway_router.commands.base import ConfigOption, JsonOption, fail, load, open_ledger
from spillway_router.config import ConfigError


def report(
    path: ConfigOption = None,
    day: Annotated[str, typer.Option(help="UTC day as YYYY-MM-DD, or today.")] = "today",
    as_json: JsonOption = False,
) -> None:
    """Fixed and per-request cost of a day, side by side."""
    from rich.console import Console

    from spillway_router.ledger.report_tables import render_report, report_json
    from spillway_router.runtime import report_for

    loaded = load(path)
    try:
        chosen = datetime.now(UTC).date() if day == "today" else date.fromisoformat(day)
    except ValueError:
        fail(f"--day {day!r} is not a date; write it like 2026-11-20")
    ledger = open_ledger(loaded)
    try:
        found = report_for(ledger, loaded, chosen)
    except ConfigError as error:
        fail(str(error))
    finally:
        ledger.close()
    if as_json:
        typer.echo(report_json(found))
    else:
        render_report(found, Console())
