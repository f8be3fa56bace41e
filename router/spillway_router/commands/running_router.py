"""What commands ask a running router: its address, what they send along, requests for JSON, and its refusals."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url, say

if TYPE_CHECKING:
    import httpx

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
    """A router's root URL, the API key that is sent to it ("" for none), and whether the requests are private."""

    url: str
    key: str = field(default="", repr=False)
    private: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request to it has."""
        key = {"authorization": f"Bearer {self.key}"} if self.key else {}
        return key | ({"x-spillway-privacy": "local-only"} if self.private else {})

    def refusal(self, status: int, text: str) -> str:
        """Return an answer with an error status in words, with what to do about a missing key."""
        try:
            error = json.loads(text)["error"]
            message = f"{status} {error['code']}: {error['message']}"
        except (ValueError, KeyError, TypeError):
            if status == 500:
                return f"500 from {self.url}: it failed at this request, and its log says why"
            return f"{status} from {self.url}: is that a Spillway router?"
        fix = " Give it with --key or SPILLWAY_API_KEY." if status == 401 and not self.key else ""
        return f"{message}{fix}"

    def unreachable(self, error: httpx.HTTPError) -> str:
        """Return why there is no answer, in words."""
        import httpx

        match error:
            case httpx.UnsupportedProtocol():
                like = "http://127.0.0.1:8080" if "://" in self.url else f"http://{self.url}"
                return f"{self.url} is no address; write it like {like}"
            case httpx.ConnectError():
                return f"nothing answers at {self.url}; start it with `spillway up`, or give its address with --url"
        return f"{self.url} did not answer: {str(error) or type(error).__name__}"


@dataclass(frozen=True, slots=True)
class LedgerOrRouter:
    """Where a command reads and changes what the ledger holds, and in which form it answers, as options."""

    config: ConfigOption = None
    url: UrlOption = None
    key: KeyOption = ""
    as_json: JsonOption = False

    @property
    def router(self) -> RouterAddress | None:
        """The router that `--url` names; None without it."""
        return None if self.url is None else RouterAddress(router_url(self.config, self.url), self.key)

    def answer(self, values: Any, text: str) -> None:
        """Print values as JSON, or the text."""
        if self.as_json:
            typer.echo(json.dumps(values, indent=2))
        else:
            say(text)


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
    except httpx.HTTPError as error:
        fail(router.unreachable(error))
    return _json_of(router, path, reply, accepts)


def ask_json(router: RouterAddress, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """Return what the router answers to a request with a JSON body, or none. A refusal ends the command with the
    router's own message."""
    import httpx

    try:
        reply = httpx.request(
            method, router.url + path, json=body, headers=router.headers, timeout=TIMEOUT_S, trust_env=False
        )
    except httpx.HTTPError as error:
        fail(router.unreachable(error))
    return _json_of(router, path, reply, (200, 201))


def _json_of(router: RouterAddress, path: str, reply: httpx.Response, accepts: Container[int]) -> Any:
    if reply.status_code not in accepts:
        fail(router.refusal(reply.status_code, reply.text))
    try:
        return reply.json()
    except ValueError:
        fail(f"{router.url}{path} did not answer with JSON: is that a Spillway router?")
