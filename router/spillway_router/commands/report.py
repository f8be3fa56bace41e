"""`spillway report`: show fixed and per-request cost side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spillway_router.commands.common import ConfigOption, JsonOption, fail, load, opened, router_url
from spillway_router.commands.experiments import experiments
from spillway_router.commands.review import review
from spillway_router.commands.running_router import KeyOption, RouterAddress, UrlOption, get_json
from spillway_router.commands.whatif import what_if
from spillway_router.config.load import ConfigError

if TYPE_CHECKING:
    from spillway_router.ledger.reports.days import ReportQuery
    from spillway_router.ledger.reports.model import Report

report_app = typer.Typer(
    help="Show fixed and per-request cost side by side; plan with what-if; review; compare experiments."
)
report_app.command("what-if")(what_if)
report_app.command("review")(review)
report_app.command("experiments")(experiments)


@report_app.callback(invoke_without_command=True)
def report(
    context: typer.Context,
    path: ConfigOption = None,
    day: Annotated[str, typer.Option(help="Day as YYYY-MM-DD, today or yesterday. The default is today.")] = "",
    month: Annotated[str, typer.Option(help="Month as YYYY-MM, this or last.")] = "",
    first: Annotated[str, typer.Option("--from", help="First day, or 7d for the last seven days.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day, included. The default is today.")] = "",
    by: Annotated[
        list[str] | None,
        typer.Option(help="Group by day, month, backend, provider, model, key, tier, task, decision; several as a,b."),
    ] = None,
    timezone: Annotated[
        str, typer.Option(help="Time zone of the days, such as Europe/Berlin. The default is report.timezone, or UTC.")
    ] = "",
    as_json: JsonOption = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print the groups as CSV (default: by day and decision).")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML file; - prints it to standard output.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = "",
) -> None:
    """Show the fixed and the per-request cost of a day, a month or a range of days, side by side."""
    from spillway_router.ledger.reports.days import ReportQuery

    if context.invoked_subcommand is not None:
        return
    if as_json + as_csv + (html is not None) > 1:
        fail("--json, --csv and --html exclude each other")
    groups = tuple(by or (("day", "decision") if as_csv else ()))
    query = ReportQuery(day=day, month=month, first=first, last=last, by=groups, timezone=timezone)
    queries = [query] if html is None else [query, replace(query, by=("day",)), replace(query, by=("key", "backend"))]
    router = None if url is None else RouterAddress(router_url(path, url), key)
    result, *breakdown = _build(path, queries) if router is None else [_of_router(router, one) for one in queries]
    if html is not None:
        _write_html(result, breakdown, html)
    elif as_csv:
        _warn_of_unpriced(result)
        from spillway_router.ledger.reports.csv_file import report_csv

        typer.echo(report_csv(result), nl=False)
    elif as_json:
        from spillway_router.ledger.reports.json_report import report_json

        typer.echo(report_json(result))
    else:
        from rich.console import Console

        from spillway_router.ledger.reports.terminal import groups_tsv, render_report

        console = Console()
        if by and not console.is_terminal:
            _warn_of_unpriced(result)
            typer.echo(groups_tsv(result), nl=False)
        else:
            render_report(result, console)


def _warn_of_unpriced(result: Report) -> None:
    """Say on standard error what rows for a spreadsheet can't: that the rent in them is not known."""
    from spillway_router.ledger.reports.words import unpriced

    if warning := unpriced(result):
        typer.echo(warning, err=True)


def _build(path: str | None, queries: Sequence[ReportQuery]) -> list[Report]:
    from spillway_router.config.assemble import assembly_of
    from spillway_router.config.costs import report_terms
    from spillway_router.ledger.reports.build import report_for
    from spillway_router.ledger.reports.days import RangeError

    loaded = load(path)
    now = datetime.now(UTC)
    try:
        terms = report_terms(loaded.settings, assembly_of(loaded, now.date()))
    except ConfigError as error:
        fail(str(error))
    with opened(loaded, "read") as ledger:
        try:
            return [report_for(ledger, query, terms, int(now.timestamp() * 1000)) for query in queries]
        except RangeError as error:
            fail(f"--{error}")


def _of_router(router: RouterAddress, query: ReportQuery) -> Report:
    """Return the report that a running router makes of its own ledger."""
    from spillway_router.ledger.reports.json_report import report_of_values

    days = {"day": query.day, "month": query.month, "from": query.first, "to": query.last}
    parameters = {**days, "timezone": query.timezone, "by": ",".join(query.by)}
    return report_of_values(get_json(router, "/v1/usage", {name: text for name, text in parameters.items() if text}))


def _write_html(result: Report, breakdown: Sequence[Report], file: Path) -> None:
    from spillway_router.dashboard.report_file import Breakdown, report_html

    text = report_html(result, Breakdown(*breakdown))
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        fail(f"{file} can't be written: {error.strerror or error}")
    typer.echo(f"wrote {file}")
