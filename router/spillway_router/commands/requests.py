"""`spillway requests`: the newest requests of a running router, one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, router_url, say
from spillway_router.commands.running_router import KeyOption, RouterAddress, RouterOption, get_json
from spillway_router.core.money.tariff import TariffError, amount_of

_EVERY_S = 1.0
"""How often a router is asked for newer requests."""
_COLUMNS = {
    "time (UTC)": "<12",
    "ended": "<8",
    "decision": "<10",
    "backend": "<12",
    "tokens": ">13",
    "ms": ">8",
    "cost": ">11",
    " id": "",
}
"""The columns of a request with their alignment and width in characters; that of the id has no end."""
_LESS_WIDE = (" id", "tokens", "ended", "backend", "ms")
"""What a narrow terminal goes without, in this order."""


def requests(
    path: ConfigOption = None,
    url: RouterOption = None,
    key: KeyOption = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new requests as they end.")] = False,
    slow: Annotated[int | None, typer.Option(min=0, help="Only those that took at least so many ms.")] = None,
    dear: Annotated[str | None, typer.Option(help="Only those that cost at least so many USD.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Only those that were refused before an attempt.")] = False,
    of_key: Annotated[str | None, typer.Option("--of-key", help="Only those of the key with this id.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only those that this backend answered.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only those with this decision, such as overflow.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the newest requests: when, how they ended, who answered and why, tokens, time and cost."""
    if dear is not None:
        try:
            amount_of(dear)
        except TariffError as error:
            fail(f"--dear {error}")
    router = RouterAddress(router_url(path, url), key)
    wanted = {
        "slow_ms": None if slow is None else str(slow),
        "cost_usd": dear,
        "ended": "refused" if refused else None,
        "key": of_key,
        "backend": backend,
        "decision": decision,
        "limit": str(limit),
    }
    filters = {name: text for name, text in wanted.items() if text is not None}
    first = get_json(router, "/v1/requests", filters)
    if as_json and not follow:
        typer.echo(json.dumps(first, indent=2))
        return
    if not as_json:
        _print_head(first)
    lines = first["requests"][::-1]
    _print(lines, as_json)
    if follow:
        for line in _newer(router, filters, lines[-1]["id"] if lines else ""):
            _print([line], as_json)


def _print_head(answer: Mapping[str, Any]) -> None:
    if answer["notice"]:
        typer.echo(f"warning: {answer['notice']}", err=True)
    typer.echo(head_of() if answer["requests"] else "No requests yet. Try: spillway chat 'Hello'")


def _print(lines: list[Mapping[str, Any]], as_json: bool) -> None:
    for line in lines:
        say(json.dumps(line) if as_json else row_of(line))


def columns_within(width: int) -> tuple[str, ...]:
    """Return the columns that a line of `width` characters holds; where it can't hold all, some are left out."""
    shown = dict(_COLUMNS)
    for name in _LESS_WIDE:
        if sum(int(form[1:] or 30) + 1 for form in shown.values()) - 1 <= width:
            break
        del shown[name]
    return tuple(shown)


def head_of(columns: Iterable[str] = tuple(_COLUMNS)) -> str:
    """Return the line above the requests."""
    return " ".join(f"{name:{_COLUMNS[name]}}" for name in columns)


def row_of(line: Mapping[str, Any], columns: Iterable[str] = tuple(_COLUMNS)) -> str:
    """Return a request as one line under the head; "-" stands for what the ledger does not keep."""
    when = (
        "-" if line["arrived_ms"] is None else f"{datetime.fromtimestamp(line['arrived_ms'] / 1000, UTC):%H:%M:%S.%f}"
    )
    took = "-" if line["total_ms"] is None else f"{line['total_ms']:,.0f}"
    why = ",".join(line["reasons"]) or line["code"]
    values = {
        "time (UTC)": when[:12],
        "ended": line["ended"],
        "decision": line["decision"] or "-",
        "backend": line["backend"] or "-",
        "tokens": f"{line['prompt_tokens']:,}+{line['completion_tokens']:,}",
        "ms": took,
        "cost": f"{'~' if line['estimated'] else ''}{shown_usd(line['cost_usd'])}",
        " id": f" {line['id']}{f'  {why}' if why else ''}",
    }
    return " ".join(f"{values[name]:{_COLUMNS[name]}}" for name in columns)


def shown_usd(amount: str) -> str:
    """Return an amount of the router, in decimal text, as people read it: with cents from one dollar on."""
    from spillway_router.core.money.currency import Amounts
    from spillway_router.core.money.tariff import nano_from_usd

    return Amounts().money(nano_from_usd(amount))


def _newer(router: RouterAddress, filters: Mapping[str, str], last: str) -> Iterator[Mapping[str, Any]]:
    """Yield requests as they end, oldest first, until the user presses Ctrl-C. One that ends later than others that
    came after it is shown too."""
    shown: set[str] = set()
    try:
        while True:
            time.sleep(_EVERY_S)
            answer = get_json(router, "/v1/requests", {**filters, "limit": "500", "after": last})
            newer = [line for line in reversed(answer["requests"]) if line["id"] not in shown]
            shown = {line["id"] for line in answer["requests"]}
            yield from newer
    except KeyboardInterrupt:
        return
