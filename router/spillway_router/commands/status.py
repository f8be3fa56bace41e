"""`spillway status` and `spillway top`: is a running router well, where do requests go, and what does today cost?"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, router_url, say
from spillway_router.commands.requests import columns_within, head_of, row_of, shown_usd
from spillway_router.commands.running_router import KeyOption, RouterAddress, RouterOption, get_json

if TYPE_CHECKING:
    from rich.console import RenderableType

_COUNTED = 200
"""The newest requests whose places are counted."""
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class RouterState:
    """What a router said at one moment: whether it is ready, its newest requests, and today's report."""

    ready: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]]
    usage: Mapping[str, Any]

    @property
    def sentence(self) -> str:
        """Whether all is well, and where requests go, in one sentence."""
        backends = self.ready.get("backends", {})
        down = sorted(name for name, one in backends.items() if one["health"] != "up" or one["breaker_open"])
        begun = "Stopping" if self.ready.get("stopping") else "Not ready" if not self.ready["ready"] else "Ready"
        if not down:
            begun = "All well" if self.ready["ready"] else begun
        elif self.ready["ready"]:
            begun = f"Ready, but without {', '.join(down)}"
        answered = [line for line in self.requests if line["ended"] == "ok"]
        if not answered:
            return f"{begun}. No requests yet."
        local = sum(line["decision"] == "local" for line in answered)
        refused = sum(line["ended"] in ("refused", "error") for line in self.requests)
        failed = f", and {refused} were refused or failed" if refused else ""
        return (
            f"{begun}: {local / len(answered):.0%} of the last {len(answered)} "
            f"{'answer' if len(answered) == 1 else 'answers'} came from the own GPU{failed}."
        )

    def values(self) -> dict[str, Any]:
        """Return the JSON values of `--json`."""
        today = {name: self.usage[name] for name in ("total_usd", "requests")}
        fixed = {name: self.usage["fixed"][name] for name in ("billed_usd", "used_usd", "idle_usd")}
        cloud = {"cost_usd": self.usage["cloud"]["cost_usd"]}
        return {
            "sentence": self.sentence,
            **self.ready,
            "today": {**today, "fixed": fixed, "cloud": cloud},
            "requests": list(self.requests),
        }


def status(
    path: ConfigOption = None, url: RouterOption = None, key: KeyOption = "", as_json: JsonOption = False
) -> None:
    """Show whether a running router is well, the state of its backends, and what today costs so far."""
    state = state_of(RouterAddress(router_url(path, url), key))
    if as_json:
        typer.echo(json.dumps(state.values(), indent=2))
    else:
        for line in lines_of(state):
            say(line)
    if not state.ready["ready"]:
        raise typer.Exit(1)


def top(
    path: ConfigOption = None,
    url: RouterOption = None,
    key: KeyOption = "",
    every: Annotated[float, typer.Option(min=0.5, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one look and exit.")] = False,
) -> None:
    """Watch a running router: its backends, today's cost and the newest requests, until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    router = RouterAddress(router_url(path, url), key)
    console = Console()
    if once or not console.is_terminal:
        console.print(_screen(state_of(router), console.width))
        return
    with Live(_screen(state_of(router), console.width), console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(every)
                live.update(_screen(state_of(router), console.width), refresh=True)
        except KeyboardInterrupt:
            return


def state_of(router: RouterAddress) -> RouterState:
    """Ask a router for its state. An error ends the command."""
    return RouterState(
        ready=get_json(router, "/ready", accepts=(200, 503)),
        requests=get_json(router, "/v1/requests", {"limit": str(_COUNTED)})["requests"],
        usage=get_json(router, "/v1/usage"),
    )


def lines_of(state: RouterState) -> list[str]:
    """Return the lines of `spillway status`."""
    lines = [state.sentence]
    for name, backend in state.ready.get("backends", {}).items():
        word = "open breaker" if backend["breaker_open"] else backend["health"]
        lines.append(f"  {name:16} {word:12} {backend['reason']}".rstrip())
    fixed, cloud = state.usage["fixed"], state.usage["cloud"]
    billed, used, idle = (shown_usd(fixed[f"{name}_usd"]) for name in ("billed", "used", "idle"))
    lines.append(
        f"today ({state.usage['period']['timezone']}): GPU {billed} ({used} used, {idle} idle), "
        f"cloud {shown_usd(cloud['cost_usd'])}"
    )
    unpriced_hours = state.usage["unpriced_gpu_hours"]
    if unpriced_hours:
        lines.append(f"The GPU's price is unknown: {unpriced_hours:,.3f} GPU-hours are in this at $0.")
        lines.append("Set gpu.price_per_hour.")
    return lines


def _screen(state: RouterState, width: int) -> RenderableType:
    from rich.text import Text

    from spillway_router.core.printable import printable

    columns = columns_within(width)
    rows = [row_of(line, columns) for line in state.requests[:_SHOWN]]
    return Text(
        "\n".join(map(printable, [*lines_of(state), "", head_of(columns), *rows])), no_wrap=True, overflow="crop"
    )
