"""`spillway dashboard`: open the pages of a running router in the browser."""

from __future__ import annotations

import sys
import webbrowser
from typing import Annotated

import typer

from spillway_router.commands.common import ConfigOption, router_url
from spillway_router.commands.running_router import RouterAddress, RouterOption, get_json


def dashboard(
    path: ConfigOption = None,
    url: RouterOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Print the address and open nothing.")] = False,
) -> None:
    """Print the address of the dashboard, and open it where there is a browser."""
    router = RouterAddress(router_url(path, url))
    get_json(router, "/health")
    typer.echo(f"{router.url}/")
    if not only_print and sys.stdout.isatty():
        webbrowser.open(f"{router.url}/")
