"""What commands ask a running router: its address, the key that they send, and GET requests for JSON."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from spillway_router.commands.common import fail

UrlOption = Annotated[
    str | None, typer.Option(help="Ask the router at this address, such as http://127.0.0.1:8080, and not the ledger.")
]
RouterOption = Annotated[
    str | None, typer.Option("--url", help="The router's address. The default is `listen` of the configuration.")
]
KeyOption = Annotated[
    str, typer.Option(envvar="SPILLWAY_API_KEY", show_envvar=True, help="API key for the router.", show_default=False)
]
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """A router's root URL, and the API key that is sent to it; "" for none."""

    url: str
    key: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request to it has."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def get_json(
    router: RouterAddress, path: str, parameters: Mapping[str, str] | None = None, accepts: Container[int] = (200,)
) -> Any:
    """Return what the router answers to a GET request. An answer with another status than those ends the command with
    the router's own message."""
    import httpx

    try:
        reply = httpx.get(
            router.url + path, params=parameters, headers=router.headers, timeout=TIMEOUT_S, trust_env=False
        )
    except httpx.UnsupportedProtocol:
        fail(f"{router.url} is no address; write it like http://127.0.0.1:8080")
    except httpx.ConnectError:
        fail(f"nothing answers at {router.url}; start it with `spillway up`, or give its address with --url")
    except httpx.HTTPError as error:
        fail(f"{router.url} did not answer: {type(error).__name__}")
    if reply.status_code not in accepts:
        fail(_refusal(reply.status_code, reply.text, router))
    try:
        return reply.json()
    except ValueError:
        fail(f"{router.url}{path} did not answer with JSON: is that a Spillway router?")


def _refusal(status: int, text: str, router: RouterAddress) -> str:
    import json

    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{status} from {router.url}: is that a Spillway router?"
    fix = " Give one with --key or SPILLWAY_API_KEY." if status == 401 and not router.key else ""
    return f"{status}: {message}{fix}"
