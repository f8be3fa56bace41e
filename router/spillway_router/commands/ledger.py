"""`spillway ledger`: verify, export, reconcile."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, writing

if TYPE_CHECKING:
    from spillway_router.ledger.reconcile import BilledAttempt

ledger_app = typer.Typer(no_args_is_help=True, help="The ledger: verify it, export it, reconcile it with a bill.")


class Format(StrEnum):
    """What `export` writes."""

    focus = "focus"
    jsonl = "jsonl"


@ledger_app.command("verify")
def verify_ledger(
    path: ConfigOption = None,
    head: Annotated[str, typer.Option(help="The head you noted before: it must still be in the chain's place.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check every row's hash, the invariants and the balances; exit 1 and name the first bad row."""
    from spillway_router.ledger.verify import verify

    with opened(load(path)) as ledger:
        found = verify(ledger, head)
    if as_json:
        typer.echo(json.dumps({"holds": found.holds, **asdict(found)}, indent=2))
    else:
        typer.echo(f"{found.rows} rows, {found.linked} of them in the hash chain")
        typer.echo(f"head {found.head}")
        for fault in found.faults:
            where = f"row {fault.seq}: " if fault.seq else ""
            typer.echo(f"  {fault.rule}: {where}{fault.detail}")
        typer.echo("nothing is wrong" if found.holds else f"{found.fault_count} faults")
    if not found.holds:
        raise typer.Exit(1)


@ledger_app.command("export")
def export_ledger(
    path: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", help="focus (CSV) or jsonl (every entry).")] = Format.focus,
    first: Annotated[str, typer.Option("--from", help="First UTC day; today if left out.")] = "today",
    last: Annotated[str, typer.Option("--to", help="Last UTC day, included; today if left out.")] = "today",
    output: Annotated[Path | None, typer.Option(help="File to write; standard output if left out.")] = None,
) -> None:
    """Export costs as FOCUS rows or all entries as JSON lines."""
    from spillway_router.ledger.reports.days import RangeError, ReportQuery, read_range
    from spillway_router.ledger.reports.export import export_focus, export_jsonl

    try:
        days = read_range(ReportQuery(first=first, last=last), datetime.now(UTC).date())
    except RangeError as error:
        fail(f"--{error}")
    with opened(load(path)) as ledger, writing(output) as out:
        if form is Format.focus:
            count = export_focus(ledger, days.first, days.after, now_ms(), out)
        else:
            count = export_jsonl(ledger, days.start_ms, days.end_ms, out)
    typer.echo(f"{count} rows of {days.name}", err=True)


@ledger_app.command("reconcile")
def reconcile_ledger(
    bill: Annotated[Path, typer.Argument(help="CSV or JSON lines: request_id, attempt_no, cost_usd or cost_nano.")],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring calls that are charged at their bound, as nobody saw their end, to what the provider billed."""
    from spillway_router.core.money.tariff import usd
    from spillway_router.ledger.reconcile import reconcile

    bills = _bills(bill)
    with opened(load(path)) as ledger:
        done = reconcile(ledger, bills, now_ms())
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in done], indent=2))
    else:
        for outcome, count in sorted(Counter(one.outcome for one in done).items()):
            typer.echo(f"{count:6}  {outcome}")
        typer.echo(f"charges changed by {usd(sum(one.difference_nano for one in done))} USD")
        for one in done:
            if one.outcome not in ("adjusted", "already"):
                typer.echo(f"  {one.bill.request_id} attempt {one.bill.attempt_no}: {one.outcome}", err=True)
    if any(one.outcome not in ("adjusted", "already") for one in done):
        raise typer.Exit(1)


def _bills(file: Path) -> tuple[BilledAttempt, ...]:
    from spillway_router.ledger.reconcile import BillError, read_bills

    try:
        return read_bills(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BillError) as error:
        fail(f"{file}: {error}")
