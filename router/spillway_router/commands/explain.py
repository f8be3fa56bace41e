"""`spillway explain`: show one request from the ledger."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, opened, router_url, say
from spillway_router.commands.running_router import KeyOption, RouterAddress, UrlOption, get_json

if TYPE_CHECKING:
    from spillway_router.ledger.entries import Entry


def explain(
    request_id: str,
    path: ConfigOption = None,
    url: UrlOption = None,
    key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what the ledger knows of a request: decision, reasons, attempts, tokens and charges."""
    if url is not None:
        _of_router(get_json(RouterAddress(router_url(path, url), key), f"/v1/requests/{quote(request_id)}"), as_json)
        return
    with opened(load(path), "read") as ledger:
        entries = ledger.entries_of(request_id)
    if not entries:
        fail(f"the ledger has no rows for {request_id}")
    if as_json:
        typer.echo(json.dumps([e._asdict() for e in entries], indent=2))
        return
    _print_entries(entries)


def _print_entries(entries: Iterable[Entry]) -> None:
    from spillway_router.core.money.currency import Amounts

    for e in entries:
        amount = Amounts().money(e.reserved_nano if e.kind == "reserved" else e.amount_nano)
        tokens = f"{e.prompt_tokens:,} + {e.completion_tokens:,} tokens"
        sure = "" if e.confidence is None else f"  confidence {e.confidence:.2f}"
        say(f"attempt {e.attempt}  {e.kind:9} {e.backend:12} {e.decision:10} {e.status:9} {tokens}  {amount}{sure}")
        if e.saved_nano:
            say(f"           saved: {Amounts().money(e.saved_nano)}, which the stored answer had cost")
        if e.reasons:
            say(f"           because: {e.reasons}")


def _of_router(record: Any, as_json: bool) -> None:
    """Print what a running router knows of a request: its record, or its ledger rows once memory has forgotten it."""
    from spillway_router.ledger.entries import Entry

    if as_json:
        typer.echo(json.dumps(record, indent=2))
    elif "entries" in record:
        _print_entries(Entry(**row) for row in record["entries"])
    else:
        _print_record(record)


def _print_record(record: Mapping[str, Any]) -> None:
    why = f" because of {', '.join(record['reasons'])}" if record["reasons"] else ""
    say(f"{record['decision'] or 'refused'}{why}: status {record['status']} {record['code']}".rstrip())
    say(f"{record['total_ms']:,.0f} ms, of which {record['overhead_ms']:.1f} ms in the router; ${record['cost_usd']}")
    for attempt in record["attempts"]:
        first = attempt["first_event_ms"]
        times = f"{attempt['started_ms']:,.0f} to {attempt['ended_ms']:,.0f} ms"
        begun = "" if first is None else f", first event at {first:,.0f} ms"
        name = f"attempt {attempt['no']}  {attempt['backend']:12} {attempt['outcome']:10}"
        say(f"{name} {times}{begun}  ${attempt['charge_usd']}")
    for removed in record["route"]["removed"]:
        say(f"left out   {removed['backend']:12} {removed['reason']}")
