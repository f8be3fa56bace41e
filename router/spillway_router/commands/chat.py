"""`spillway chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url


def chat(
    text: Annotated[str | None, typer.Argument(help="Answer this and end; - reads standard input.")] = None,
    path: ConfigOption = None,
    url: Annotated[str | None, typer.Option(help="The router's address; else `listen` of the configuration.")] = None,
    model: Annotated[str, typer.Option(help="Alias, or backend/model.")] = "auto",
    key: Annotated[str, typer.Option(envvar="SPILLWAY_API_KEY", show_envvar=True, help="API key.")] = "",
    private: Annotated[bool, typer.Option("--private", help="The text must not leave this machine's engines.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of one answer.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a running router; shows who answered, why, and what it cost."""
    from rich.console import Console

    from spillway_router.commands.chat_client import Asking, ChatError, converse, one_shot

    asking = Asking(router_url(path, url), model, key, private, max_tokens)
    console = Console()
    if text is None:
        if as_json:
            fail("--json answers one text: spillway chat --json 'your text'")
        converse(asking, console, lambda: console.input("[bold]> [/]"))
        return
    try:
        one_shot(asking, sys.stdin.read() if text == "-" else text, console, as_json=as_json)
    except ChatError as error:
        fail(str(error))
