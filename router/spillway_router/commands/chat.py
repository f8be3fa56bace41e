"""`spillway chat`: hold a conversation in the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url
from spillway_router.commands.running_router import KeyOption, RouterAddress, RouterOption


def chat(
    text: Annotated[str | None, typer.Argument(help="Answer this text and exit; - reads standard input.")] = None,
    path: ConfigOption = None,
    url: RouterOption = None,
    model: Annotated[str, typer.Option(help="An alias, or backend/model.")] = "auto",
    key: KeyOption = "",
    private: Annotated[bool, typer.Option("--private", help="The text must not leave this machine's engines.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The maximum number of tokens per answer.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Talk to a running router, and see after each answer which backend gave it, why, and what it cost."""
    from rich.console import Console

    from spillway_router.commands.chat_client import ChatError, ChatTarget, converse, one_shot

    target = ChatTarget(RouterAddress(router_url(path, url), key, private), model, max_tokens)
    console = Console()
    if text is None:
        if as_json:
            fail("--json needs a text: spillway chat --json 'your text'")
        with contextlib.suppress(ImportError):  # not in every build of Python
            import readline  # noqa: F401  # gives the prompt its line editing and its history
        converse(target, console, lambda: console.input("[bold]> [/]"))
        return
    try:
        one_shot(target, sys.stdin.read() if text == "-" else text, console, as_json=as_json)
    except ChatError as error:
        fail(str(error))
