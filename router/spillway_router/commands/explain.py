"""`spillway explain`: show one request from the ledger."""

from __future__ import annotations

import json

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, opened, say


def explain(request_id: str, path: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the ledger knows of a request: decision, reasons, attempts, tokens and charges."""
    from spillway_router.core.money.currency import Amounts

    with opened(load(path), "read") as ledger:
        entries = ledger.entries_of(request_id)
    if not entries:
        fail(f"the ledger has no rows for {request_id}")
    if as_json:
        typer.echo(json.dumps([e._asdict() for e in entries], indent=2))
        return
    for e in entries:
        amount = Amounts().money(e.reserved_nano if e.kind == "reserved" else e.amount_nano)
        tokens = f"{e.prompt_tokens:,} + {e.completion_tokens:,} tokens"
        sure = "" if e.confidence is None else f"  confidence {e.confidence:.2f}"
        say(f"attempt {e.attempt_no}  {e.kind:9} {e.backend:12} {e.decision:10} {e.status:9} {tokens}  {amount}{sure}")
        if e.saved_nano:
            say(f"           saved: {Amounts().money(e.saved_nano)}, which the stored answer had cost")
        if e.reasons:
            say(f"           because: {e.reasons}")
