"""`spillway ledger`: verify, export, back up and restore the ledger, list what is not known, reconcile with a bill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, now_ms, opened, say, when, writing

if TYPE_CHECKING:
    from spillway_router.config.load import Loaded
    from spillway_router.ledger.bills import Bill
    from spillway_router.ledger.interface import Ledger
    from spillway_router.ledger.recompute import ChargeCounts
    from spillway_router.ledger.reconcile import Reconciled
    from spillway_router.ledger.reconcile_days import ReconciledDay
    from spillway_router.ledger.reports.days import ReportRange
    from spillway_router.ledger.tables.acts import Change
    from spillway_router.ledger.unsure import UnsureAttempt

ledger_app = typer.Typer(
    no_args_is_help=True, help="Verify the ledger, export it, back it up, reconcile it with a bill."
)


class ActSubject(StrEnum):
    """What acts can be about."""

    key = "key"
    provider_key = "provider_key"
    rental = "rental"
    cost = "cost"
    review = "review"
    request = "request"
    config = "config"
    ledger = "ledger"


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
    """Check every row's hash, the invariants and the balances; on a fault, name the first bad row and exit 1.

    Without --head, the last head in ledger.anchor.file is the one that must still be part of the chain.
    """
    from spillway_router.ledger.anchor import last_heads
    from spillway_router.ledger.verify import verify

    loaded = load(path)
    file = loaded.settings.ledger.anchor.file
    try:
        noted, noted_act = last_heads(file) if file is not None else ("", "")
    except OSError as error:
        fail(f"ledger.anchor.file {file} can't be read: {error.strerror or error}")
    with opened(loaded, "read") as ledger:
        verification = verify(ledger, head or noted, noted_act)
    if as_json:
        typer.echo(json.dumps({"holds": verification.holds, **asdict(verification)}, indent=2))
    else:
        say(f"{verification.rows} rows, {verification.linked} of them in the hash chain")
        say(f"head {verification.head}")
        typer.echo(charges_line(verification.charges))
        say(f"{verification.acts} acts of administrators, in a hash chain of their own")
        for fault in verification.faults:
            where = f"row {fault.seq}: " if fault.seq else ""
            say(f"  {fault.rule}: {where}{fault.detail}")
        typer.echo("no faults" if verification.holds else f"{verification.fault_count} faults")
    if not verification.holds:
        raise typer.Exit(1)


def charges_line(counts: ChargeCounts) -> str:
    """Return how many charges were computed again from the ledger, and which can't be."""
    rest = {
        "named by the provider": counts.named,
        "not known for sure": counts.unsure,
        "adjustments": counts.adjusted,
        "older than the kept prices": counts.not_kept,
    }
    others = [f"{count} {words}" for words, count in rest.items() if count]
    return ", ".join([f"{counts.computed} charges computed again from usage and price", *others])


@ledger_app.command("acts")
def list_acts(
    path: ConfigOption = None,
    about: Annotated[
        ActSubject | None, typer.Option(help="List only acts on these. The default is all.", case_sensitive=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List what administrators did: when, by whom, and what it set."""
    with opened(load(path), "read") as ledger:
        acts = [linked.act for linked in ledger.acts.all()]
    if about is not None:
        acts = [act for act in acts if act.kind.startswith(f"{about}.")]
    if as_json:
        typer.echo(json.dumps([{**act._asdict(), "details": json.loads(act.details)} for act in acts], indent=2))
        return
    for act in acts:
        say(f"{when(act.ts)}  {act.kind:19}  {act.subject}  by {act.by or 'somebody'}  {act.details}")


@ledger_app.command("export")
def export_ledger(
    path: ConfigOption = None,
    form: Annotated[Format, typer.Option("--format", help="focus (CSV) or jsonl (every entry).")] = Format.focus,
    first: Annotated[str, typer.Option("--from", help="First UTC day.")] = "today",
    last: Annotated[str, typer.Option("--to", help="Last UTC day, included.")] = "today",
    output: Annotated[Path | None, typer.Option(help="File to write. The default is standard output.")] = None,
    daily: Annotated[
        bool, typer.Option("--daily", help="One FOCUS row per day, group of attempts and API key, not per attempt.")
    ] = False,
) -> None:
    """Export costs as FOCUS rows or all entries as JSON lines."""
    from spillway_router.ledger.reports.days import RangeError, ReportQuery, read_range
    from spillway_router.ledger.reports.export import export_focus, export_jsonl

    if daily and form is not Format.focus:
        fail("--daily is for --format focus")
    try:
        days = read_range(ReportQuery(first=first, last=last), now_ms())
    except RangeError as error:
        fail(f"--{error}")
    loaded = load(path)
    with opened(loaded, "read") as ledger, writing(output) as out:
        if form is Format.focus:
            count = export_focus(ledger, days, now_ms(), out, daily=daily)
            _warn_of_unpriced(ledger, days, is_free=loaded.settings.gpu.is_free)
        else:
            count = export_jsonl(ledger, days.start_ms, days.end_ms, out)
    typer.echo(f"{count} rows of {days.name}", err=True)


def _warn_of_unpriced(ledger: Ledger, days: ReportRange, *, is_free: bool) -> None:
    """Say on standard error that GPU time is among the rows at 0, because nobody gave its price."""
    from spillway_router.ledger.rentals.fixed_cost import rent_of, unpriced_us

    rent = rent_of(ledger, days.calendar, now_ms())
    unpriced = unpriced_us(((each, span.gpu_us) for each, span in rent.rentals), is_free=is_free)
    if unpriced:
        typer.echo(
            f"warning: the price of the GPU is unknown, and {unpriced / 3.6e9:,.3f} GPU-hours are in these rows at 0; "
            "set gpu.price_per_hour, and correct what is booked: spillway rentals correct ID --price USD",
            err=True,
        )


@ledger_app.command("backup")
def back_up_ledger(
    file: Annotated[Path, typer.Argument(help="New file to write.")],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the ledger into one file, while routers may continue to write, and verify the copy."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.store.open import ledger_file
    from spillway_router.ledger.store.sqlite.backup import back_up

    try:
        source = ledger_file(_file_url(load(path)))
        back_up(source, file)
    except LedgerError as error:
        fail(f"ledger: {error}")
    _report_copy(file, as_json, {"ledger": str(source), "backup": str(file)})


@ledger_app.command("restore")
def restore_ledger(
    file: Annotated[Path, typer.Argument(help="File that `spillway ledger backup` wrote.")],
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the ledger, which is kept beside it; no router may run meanwhile."""
    from spillway_router.ledger.errors import LedgerError
    from spillway_router.ledger.store.open import ledger_file
    from spillway_router.ledger.store.sqlite.backup import restore
    from spillway_router.ledger.tables.acts import Change

    try:
        loaded = load(path)
        target = ledger_file(_file_url(loaded))
        _report_copy(file, as_json=False, values=None)
        before = restore(file, target, now_ms())
        with opened(loaded, "write") as ledger:
            ledger.acts.record(Change("ledger.restore", file.name, {"before": None if before is None else before.name}))
    except LedgerError as error:
        fail(f"ledger: {error}")
    kept = None if before is None else str(before)
    _report_copy(target, as_json, {"backup": str(file), "ledger": str(target), "before": kept})


def _file_url(loaded: Loaded) -> str:
    url = loaded.settings.ledger.url
    if url.startswith("postgres"):
        fail("the ledger is in PostgreSQL: back it up with pg_dump --schema=spillway, and restore it with pg_restore")
    return url


def _report_copy(file: Path, as_json: bool, values: dict[str, Any] | None) -> None:
    """Verify a copy and print where it is, how many rows it has and its head. A fault ends the command."""
    from spillway_router.ledger.errors import LedgerOutdatedError
    from spillway_router.ledger.store.sqlite.ledger import SqliteLedger
    from spillway_router.ledger.verify import verify

    try:
        with closing(SqliteLedger.open_to_read(file)) as ledger:
            verification = verify(ledger)
    except LedgerOutdatedError as error:
        if values is not None:
            typer.echo(f"{file} is written, but not verified: {error}", err=True)
        return
    if not verification.holds:
        first = verification.faults[0]
        fail(f"{file} has {verification.fault_count} faults; the first: {first.rule}: {first.detail}")
    if values is None:
        return
    values |= {"rows": verification.rows, "head": verification.head}
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    for name, value in values.items():
        if value is not None:
            say(f"{name:7} {value}")


@ledger_app.command("unknown")
def list_unknown(
    path: ConfigOption = None,
    first: Annotated[str, typer.Option("--from", help="First UTC day.")] = "today",
    last: Annotated[str, typer.Option("--to", help="Last UTC day, included.")] = "today",
    as_csv: Annotated[bool, typer.Option("--csv", help="Write a file for `reconcile`: fill in its cost_usd.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the calls whose charge is not known for sure: estimates, and bounds after a crash."""
    from spillway_router.core.money.currency import IN_USD
    from spillway_router.ledger.reports.days import RangeError, ReportQuery, read_range
    from spillway_router.ledger.unsure import unsure_attempts

    if as_csv and as_json:
        fail("--json and --csv exclude each other")
    try:
        days = read_range(ReportQuery(first=first, last=last), now_ms())
    except RangeError as error:
        fail(f"--{error}")
    with opened(load(path), "read") as ledger:
        attempts = tuple(unsure_attempts(ledger, days.start_ms, days.end_ms))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in attempts], indent=2))
        return
    if as_csv:
        _print_bill(attempts)
        return
    for one in attempts:
        call = f"{_time_text(one.held_ms)}  {one.request_id}.{one.attempt_no}  {one.backend}  {one.status}"
        say(f"{call}  {IN_USD.money(one.estimated_nano)}, at most {IN_USD.money(one.at_most_nano)}")
    estimated, at_most = sum(one.estimated_nano for one in attempts), sum(one.at_most_nano for one in attempts)
    sums = f"estimated {IN_USD.money(estimated)}, at most {IN_USD.money(at_most)}"
    say(f"{len(attempts)} calls of {days.name}: {sums}")


def _print_bill(attempts: Sequence[UnsureAttempt]) -> None:
    """Print the attempts as a bill whose costs are to be filled in."""
    from spillway_router.core.money.tariff import usd
    from spillway_router.core.printable import spreadsheet_text

    typer.echo("request_id,attempt_no,sent,backend,model,estimated_usd,at_most_usd,cost_usd")
    for one in attempts:
        names = [spreadsheet_text(name).replace(",", " ") for name in (one.backend, one.model)]
        named = ",".join([one.request_id, str(one.attempt_no), _time_text(one.held_ms), *names])
        say(f"{named},{usd(one.estimated_nano)},{usd(one.at_most_nano)},")


def _time_text(epoch_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@ledger_app.command("reconcile")
def reconcile_ledger(
    bill: Annotated[
        Path,
        typer.Argument(
            help="A provider's costs by day, as its API or console exports them, or CSV or JSON lines with request_id, "
            "attempt_no, and cost_usd or cost_nano."
        ),
    ],
    backend: Annotated[
        list[str] | None,
        typer.Option(help="Backend that the bill's account pays for, if not all of its provider; may be repeated."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Adjust charges that came with their usage too, if the bill contradicts them."),
    ] = False,
    path: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct what the ledger doesn't know for sure, or has at an old price, to what the provider billed."""
    from spillway_router.ledger.reconcile import reconcile
    from spillway_router.ledger.reconcile_days import SETTLED, reconcile_days

    billed, names = _bill(bill), tuple(backend or ())
    with opened(load(path), "write") as ledger:
        calls = reconcile(ledger, billed.attempts, now_ms(), force=force)
        today = datetime.now(UTC).date()
        days = [one for daily in billed.daily for one in reconcile_days(ledger, daily, today, names, force=force)]
        _record(ledger, _reconciled(bill, calls, days, force=force), calls, days)
    incomplete = [f"{daily.account}: {daily.incomplete}" for daily in billed.daily if daily.incomplete]
    if as_json:
        shown_calls = [asdict(one) for one in calls]
        shown_days = [{**asdict(one), "difference_nano": one.difference_nano} for one in days]
        typer.echo(json.dumps({"calls": shown_calls, "days": shown_days, "notes": incomplete}, indent=2))
    else:
        if billed.attempts:
            _show_calls(calls)
        _show_days(days)
        for note in incomplete:
            typer.echo(note, err=True)
    if any(one.outcome not in ("adjusted", "already") for one in calls) or any(d.outcome not in SETTLED for d in days):
        raise typer.Exit(1)


def _record(ledger: Ledger, act: Change, calls: Sequence[Reconciled], days: Sequence[ReconciledDay]) -> None:
    """Record a bill that changed something, or did so before in a run that was killed before it said so."""
    outcomes = {one.outcome for one in calls} | {day.outcome for day in days}
    if "adjusted" not in outcomes:
        is_known = any(json.loads(one.act.details).get(_BILL) == act.fields[_BILL] for one in ledger.acts.all())
        if is_known or "already" not in outcomes:
            return
    ledger.acts.record(act)


_BILL = "bill_sha256"


def _reconciled(file: Path, calls: Sequence[Reconciled], days: Sequence[ReconciledDay], *, force: bool) -> Change:
    """Return the act that a reconciliation is."""
    from spillway_router.ledger.tables.acts import Change

    changed_nano = sum(one.difference_nano for one in calls) + sum(nano for day in days for _, nano in day.rows)
    bill = sha256(file.read_bytes()).hexdigest()
    fields = {_BILL: bill, "calls": len(calls), "days": len(days), "changed_nano": changed_nano, "force": force}
    return Change("ledger.reconcile", file.name, fields)


def _show_calls(calls: Sequence[Reconciled]) -> None:
    from spillway_router.core.money.tariff import usd

    for outcome, count in sorted(Counter(one.outcome for one in calls).items()):
        say(f"{count:6}  {outcome}")
    say(f"charges changed by {usd(sum(one.difference_nano for one in calls))} USD")
    for one in calls:
        if one.outcome not in ("adjusted", "already"):
            typer.echo(f"  {one.bill.request_id} attempt {one.bill.attempt_no}: {one.outcome}", err=True)


_ADVICE = {
    "contradicts": "charges that came with their usage differ; --force adjusts them",
    "not over": "the day is not over",
    "no calls": "the ledger has no calls of that day; was the account used elsewhere?",
    "not in the bill": "the bill doesn't have this day",
    "conflict": "another process has adjusted the day; try again",
}


def _show_days(days: Sequence[ReconciledDay]) -> None:
    from spillway_router.core.money.tariff import usd

    for day in days:
        what = f"{day.day} {day.account}: billed {usd(day.billed_nano)}, booked {usd(day.booked_nano)} USD"
        if day.outcome in _ADVICE:
            typer.echo(f"{what}: {day.outcome}, {_ADVICE[day.outcome]}", err=True)
            continue
        rows = ", ".join(f"{name} by {usd(nano)}" for name, nano in day.rows)
        say(f"{what}: {day.outcome}{f' ({rows})' if rows else ''}")
        if day.unsure > 0:
            calls = "1 call" if day.unsure == 1 else f"{day.unsure} calls"
            amounts = f"estimated {usd(day.estimated_nano)}, at most {usd(day.at_most_nano)} USD"
            say(f"  {calls} still not known one by one: {amounts}; the day's sum is the bill's")
    if days:
        changed_nano = sum(nano for day in days for _, nano in day.rows)
        say(f"charges changed by {usd(changed_nano)} USD")


def _bill(file: Path) -> Bill:
    from spillway_router.ledger.bills import MOST_BYTES, BillError, read_bill

    try:
        if file.stat().st_size > MOST_BYTES:
            fail(f"{file}: it has more than {MOST_BYTES // 1024 // 1024} MB; split it by days")
        return read_bill(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, BillError) as error:
        fail(f"{file}: {error}")
