"""`spillway ledger`: verify the ledger, export it, reconcile it with a bill."""

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

ledger_app = typer.Typer(no_args_is_help=True, help="Verify the ledger, export it, reconcile it with a bill.")


class Format(StrEnum):
    """A format that `export` writes."""

    focus = "focus"
    jsonl = "jsonl"


@ledger_app.command("verify")
def verify_ledger(
    path: ConfigOption = None,
    head: Annotated[str, typer.Option(help="A head that you noted before; it must still be part of the chain.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Check every row's hash, the invariants and the balances; on a fault, name the first bad row and exit 1."""
    from spillway_router.ledger.verify import verify

    with opened(load(path), "read") as ledger:
        verification = verify(ledger, head)
    if as_json:
        typer.echo(json.dumps({"holds": verification.holds, **asdict(verification)}, indent=2))
    else:
        typer.echo(f"{verification.rows} rows, {verification.linked} of them in the hash chain")
        typer.echo(f"head {verification.head}")
        for fault in verification.faults:
            where = f"row {fault.seq}: " if fault.seq else ""
            typer.echo(f"  {fault.rule}: {where}{fault.detail}")
        typer.echo("no faults" if verification.holds else f"{verification.fault_count} faults")
    if not verification.holds:
        raise typer.Exit(1)


@ledger_app.command("export")
def export_ledger(
    path: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", help="focus (CSV) or jsonl (every entry).")] = Format.focus,
    first: Annotated[str, typer.Option("--from", help="First UTC day.")] = "today",
    last: Annotated[str, typer.Option("--to", help="Last UTC day, included.")] = "today",
    output: Annotated[Path | None, typer.Option(help="File to write. The default is standard output.")] = None,
) -> None:
    """Export costs as FOCUS rows or all entries as JSON lines."""
    from spillway_router.ledger.reports.days import RangeError, ReportQuery, read_range
    from spillway_router.ledger.reports.export import export_focus, export_jsonl

    try:
        days = read_range(ReportQuery(first=first, last=last), datetime.now(UTC).date())
    except RangeError as error:
        fail(f"--{error}")
    with opened(load(path), "read") as ledger, writing(output) as out:
        if form is Format.focus:
            count = export_focus(ledger, days.first, days.after, now_ms(), out)
        else:
            count = export_jsonl(ledger, days.start_ms, days.end_ms, out)
    typer.echo(f"{count} rows of {days.name}", err=True)


@ledger_app.command("reconcile")
def reconcile_ledger(
    bill: Annotated[
        Path, typer.Argument(help="CSV or JSON lines with request_id, attempt_no, and cost_usd or cost_nano.")
    ],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct calls that were interrupted by a crash, and are charged at their upper bound, to what the provider
    billed."""
    from spillway_router.core.money.tariff import usd
    from spillway_router.ledger.reconcile import reconcile

    bills = _bills(bill)
    with opened(load(path), "write") as ledger:
        outcomes = reconcile(ledger, bills, now_ms())
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in outcomes], indent=2))
    else:
        for outcome, count in sorted(Counter(one.outcome for one in outcomes).items()):
            typer.echo(f"{count:6}  {outcome}")
        typer.echo(f"charges changed by {usd(sum(one.difference_nano for one in outcomes))} USD")
        for one in outcomes:
            if one.outcome not in ("adjusted", "already"):
                typer.echo(f"  {one.bill.request_id} attempt {one.bill.attempt_no}: {one.outcome}", err=True)
    if any(one.outcome not in ("adjusted", "already") for one in outcomes):
        raise typer.Exit(1)


def _bills(file: Path) -> tuple[BilledAttempt, ...]:
    from spillway_router.ledger.reconcile import BillError, read_bills

    try:
        return read_bills(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BillError) as error:
        fail(f"{file}: {error}")
